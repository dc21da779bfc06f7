"""Cloud Storage on loopback: what google-cloud-storage 3 needs, with every check that Google makes.

objects.py       ObjectStore: buckets and objects on disk, preconditions, checksums
resumable.py     resumable uploads, which survive a restart; parts.py: XML multipart uploads
server.py        the HTTP server; json_api.py, upload_api.py, xml_api.py: the three dialects it speaks
"""
