"""From model.mar to an endpoint that answers, on Google or on the local cloud.

config.py      deploy.yaml, profiles and flags
connection.py  Google's own clients, pointed at one target and never at the other
flow.py        the steps in order: upload, register, endpoint, rollout, smoke, traffic
plan.py        what deploy would make, change and charge
"""
