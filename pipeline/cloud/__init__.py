"""marquee's local cloud: Cloud Storage and Vertex AI on loopback, for Google's own client libraries.

state.py         the folder that holds everything: objects, keys, ports, faults; survives a restart
storage/         Cloud Storage: the store on disk and its JSON and XML APIs
vertex/          Vertex AI: models, endpoints, predictions, replicas
certificates.py  a certificate authority of its own, trusted only by those who are told to
proxy.py         leads unmodified programs here, by environment variables alone
process.py       one detached server process that runs all of it
faults.py        what should go wrong, on request
"""
