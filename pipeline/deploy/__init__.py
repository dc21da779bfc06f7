"""From model.mar to an endpoint that answers, on Google or on the local cloud.

config.py      deploy.yaml, profiles and flags
connection.py  Google's own clients, pointed at one target and never at the other
survey.py      what is there, asked once and turned into the values of inventory.py
planning.py    survey and configuration become a plan (plan.py); switching.py and teardown_plan.py likewise
carry_out.py   a plan's actions on Vertex AI, in order
flow.py        deploy: local checks, survey, plan, carry out; traffic.py and teardown.py likewise
"""
