"""The bare Flask view that the endpoint is measured against: the same bytes, headers, ETags and 304.

Written as one would by hand: two ready bodies, their headers, and a comparison of the ETag.
``BARE`` in the environment names the JSON file that holds them (see ``endpoint.capture``).
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from flask import Flask, Response, request


def from_environment() -> Flask:
    kept = json.loads(Path(os.environ["BARE"]).read_text())
    zipped, plain = (
        (base64.b64decode(kept[k]["body"]), kept[k]["full"], kept[k]["unchanged"], kept[k]["full"]["etag"])
        for k in ("gzip", "identity")
    )
    app = Flask(__name__, static_folder=None)

    @app.get(kept["path"])
    def document() -> Response:
        takes_gzip = "gzip" in request.headers.get("Accept-Encoding", "")
        body, full, unchanged, etag = zipped if takes_gzip else plain
        if request.headers.get("If-None-Match") == etag:
            return Response(status=304, headers=unchanged)
        return Response(body, headers=full)

    return app
