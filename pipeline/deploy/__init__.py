"""From model.mar to an endpoint that answers, on Google or on the local cloud.

config.py      deploy.yaml, profiles and flags
connection.py  Google's own clients, pointed at one target and never at the other
survey.py      reads once what a cloud holds, as the values of inventory.py
planning.py    makes a plan (plan.py) of survey and configuration; switching.py and teardown_plan.py likewise
carry_out.py   carries out a plan's actions on Vertex AI, in order
flow.py        deploy: local checks, survey, plan, carry out; traffic.py and teardown.py likewise
"""
