"""Answers as ClickHouse's HTTP interface does, with the engine of chdb: python todays.py PORT"""

import gzip
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import parse_qs, urlsplit

from chdb.session import Session

database = Session()
one_at_a_time = Lock()


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = parse_qs(urlsplit(self.path).query)
        body = self.body()
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        statement = asked.get("query", [""])[0]
        statement = f"{statement}\n{body.decode()}" if statement else body.decode()
        status, answer = 200, b""
        try:
            with one_at_a_time:
                if name := asked.get("database"):
                    database.query(f"USE {name[0]}")
                answer = database.query(statement, "TabSeparated").bytes()
        except Exception as error:
            status, answer = 500, str(error).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def body(self):
        if length := self.headers.get("Content-Length"):
            return self.rfile.read(int(length))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Front).serve_forever()
