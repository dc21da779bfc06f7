"""marquee's local cloud: Cloud Storage and Vertex AI on loopback, for Google's own client libraries.

state.py         the folder that holds everything: objects, keys, ports, faults; survives a restart
storage/         Cloud Storage: the store on disk and its JSON and XML APIs
vertex/          Vertex AI: models, endpoints, predictions, replicas
certificates.py  a certificate authority of its own, trusted only by those who are told to
tokens.py        the tokens that every call needs; accounts.py gives them, credentials.py is the account's key
gate.py          no browser, no foreign Host; http_server.py and token_interceptor.py ask it on every call
http_server.py   what the three HTTP servers share, on Starlette and uvicorn; http_connection.py: resets, TLS
body.py          bodies as threads read them, and json_body.py JSON, read strictly
proxy.py         leads unmodified programs here, by environment variables alone; hosts.py: for which names
servers.py       all servers in this process; process.py: one detached process that runs them
leftovers.py     what a killed cloud left behind
faults.py        what should go wrong, on request
"""
