"""The endpoint: hands out the finished bytes of releases, and can neither fetch nor compute nor write.

``app.create_app`` makes the Flask application, ``server.serve`` runs it. Nothing in this package
imports pandas, numpy, pydantic or the working store.
"""
