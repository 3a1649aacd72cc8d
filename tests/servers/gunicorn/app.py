"""The application that gunicorn serves. Every request takes 10 ms."""

import os
import time

WORK = 0.010


def app(environ, start_response):
    if environ["PATH_INFO"] != "/health":
        time.sleep(WORK)
    generation = os.environ.get("ZDR_GENERATION", "")
    body = f"generation {generation}\n".encode()
    start_response("200 OK", [("X-Generation", generation), ("Content-Length", str(len(body)))])
    return [body]
