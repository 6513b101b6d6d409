#!/usr/bin/env python3
"""Another version of ClickHouse over HTTP, out of a wheel of chdb, to test against it.

    serve.py WHEEL DATA_FOLDER HTTP_PORT [NAME=VALUE of the server's configuration ...]

WHEEL is the folder of an unpacked wheel; fetch.sh makes them. How it serves depends on what the wheel has:

    server   25.8   the whole ClickHouse server: users, TCP, replication
    shim     26.3   http.server here, and a connection of chdb for each request
    listen   26.9   the HTTP interface that `clickhouse local` itself has since 26.6

`server` and `listen` are ClickHouse's own HTTP interface. A `config.xml` in the current folder is added to the
configuration. The engine ends in order on SIGTERM or SIGINT, or when standard input ends if that is a pipe.

What `shim` lacks: users and passwords, the summary of an INSERT, `DROP … SYNC` (it drops without waiting),
bodies larger than memory, and a `query_id` that reaches the engine (it is only echoed). Tests that need one of
them are named in the file `lacks`. The block ids of its INSERTs are those of the real server.
"""
import ctypes
import glob
import http.server
import os
import re
import select
import signal
import stat
import sys
import tempfile
import threading
import types
import urllib.parse

HOST = "127.0.0.1"
SERVER_MAIN = "_Z25mainEntryClickHouseServeriPPc"
STOP = {signal.SIGTERM, signal.SIGINT}

USERS = f"""
  <users><default><password/><networks><ip>{HOST}</ip></networks><profile>default</profile>
    <quota>default</quota><access_management>1</access_management></default></users>
  <profiles><default/></profiles><quotas><default/></quotas>"""

# Of ClickHouse's exceptionCodeToHTTPStatus.cpp; everything else is 500.
STATUS = {
    400: [6, 8, 15, 25, 26, 27, 36, 38, 41, 44, 53, 62, 72, 117, 321, 376, 427, 441, 675, 676],
    403: [192, 193, 497, 516],
    404: [46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336, 511],
    408: [159],
    501: [48],
    503: [76, 209, 439],
}
# Parameters of the HTTP interface that are no settings.
NOT_SETTINGS = {"query", "query_id", "database", "user", "password", "default_format", "wait_end_of_query"}
INSERT = re.compile(r"\s*(INSERT\s.*\s)FORMAT\s+(\w+)\s*", re.I | re.S)
DROP_SYNC = re.compile(r"(DROP\s.*)\sSYNC\s*;?", re.I | re.S)
INPUT = re.compile(r"\binput\('((?:[^'\\]|\\.)*)'\)", re.I)


def configuration(data, port, extra, is_server):
    """Writes the configuration: every kind of engine reads `config.xml` in the current folder."""
    given = ""
    if os.path.exists("config.xml"):
        with open("config.xml") as file:
            given = re.sub(r"</?(clickhouse|yandex)>|<\?xml[^>]*>", "", file.read())
    parts = [f"<{name}>{value}</{name}>" for name, value in extra]
    parts += [f"<listen_host>{HOST}</listen_host><http_port>{port}</http_port>"]
    parts += ["<max_server_memory_usage>6000000000</max_server_memory_usage>"]
    if is_server:
        parts += [f"<path>{data}/</path><tmp_path>{data}/tmp/</tmp_path>"]
        parts += [f"<user_files_path>{data}/user_files/</user_files_path>"]
        parts += ["<logger><level>warning</level><console>1</console></logger>"]
        parts += [USERS] if "<users>" not in given else []
    path = os.path.join(data, "config.xml")
    with open(path, "w") as file:
        file.write("<clickhouse>" + given + "\n".join(parts) + "\n</clickhouse>\n")
    os.chdir(data)
    return path


def stop_when_stdin_ends(is_server):
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return
    poll = select.poll()
    # The server closes all files but the first three when it starts; `listen` takes the first for itself.
    poll.register(0 if is_server else os.dup(0), 0)

    def wait():
        while not any(event & select.POLLHUP for _, event in poll.poll()):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run_until_stop(work):
    """Runs `work` in a thread, and returns when it ended or a signal came, with what it raised."""
    raised = []

    def run():
        try:
            work()
        except Exception as error:  # noqa: BLE001
            raised.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    signal.sigwait(STOP)
    return thread, raised


def serve_with_server(library, config):
    os.environ["CLICKHOUSE_WATCHDOG_ENABLE"] = "0"  # Else it forks, and this process only watches.
    arguments = [b"clickhouse-server", b"--config-file=" + config.encode()]
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
    return library[SERVER_MAIN](len(arguments), argv)


def serve_with_listen(native, data):
    # The second query only keeps the first one's interface open, until standard input ends.
    end, held = os.pipe()
    os.dup2(end, 0)
    os.close(end)
    query = "SYSTEM START LISTEN HTTP; SELECT count() FROM file('/dev/stdin', LineAsString, 'line String')"
    thread, raised = run_until_stop(lambda: native.query(query, "TSV", path=data))
    os.close(held)
    thread.join(30)
    return raised


class Absent(types.ModuleType):
    """A package that chdb imports for its results, and that nothing here uses."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def serve_with_shim(data, port):
    from chdb.state.sqlitelike import Connection

    Shim.connect = staticmethod(lambda: Connection(data))
    Shim.folder = tempfile.mkdtemp(prefix="clickhouse-shim-")
    kept = Shim.connect()
    server = http.server.ThreadingHTTPServer((HOST, port), Shim)
    _, raised = run_until_stop(server.serve_forever)
    server.shutdown()
    server.server_close()  # Waits for the requests that run.
    kept.close()
    os.rmdir(Shim.folder)
    return raised


class Shim(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    connect = None
    folder = None

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.read_body())

    def read_exactly(self, size):
        data = self.rfile.read(size)
        if len(data) != size:
            raise ConnectionError("the body broke off")  # Ends the connection; nothing was run.
        return data

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.read_exactly(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0].strip() or b"x", 16):
            pieces.append(self.read_exactly(size + 2)[:-2])
        self.rfile.readline()
        return b"".join(pieces)

    def answer(self, body):
        url = urllib.parse.urlsplit(self.path)
        parameters = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
        status, code = 200, None
        try:
            text = b"Ok.\n" if url.path == "/ping" else self.run(parameters, body)
        except Exception as error:  # noqa: BLE001
            found = re.search(r"Code: (\d+)\.", str(error))
            code = int(found.group(1)) if found else 1002
            status = next((status for status, codes in STATUS.items() if code in codes), 500)
            # chdb repeats the code in front of what the engine said.
            text = re.sub(r"^(Code: \d+\. DB::Exception: )+", r"\1", str(error)).encode() + b"\n"
        self.send_response(status)
        if query_id := dict(parameters).get("query_id"):
            self.send_header("X-ClickHouse-Query-Id", query_id)
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def run(self, parameters, body):
        query = dict(parameters).get("query", "")
        insert = INSERT.fullmatch(query)
        connection = self.connect()
        try:
            for name, value in parameters:
                if name == "database" and value:
                    connection.query(f"USE `{value}`", "TSV")
                elif name not in NOT_SETTINGS:
                    value = value.replace("\\", "\\\\").replace("'", "\\'")
                    connection.query(f"SET {name} = '{value}'", "TSV")
                    if name == "max_insert_block_size":  # FROM INFILE makes blocks of this one.
                        connection.query(f"SET max_block_size = '{value}'", "TSV")
            if insert:
                return self.insert(connection, insert.group(1), insert.group(2), body)
            statement = (query + "\n" + body.decode()).strip()
            if dropped := DROP_SYNC.fullmatch(statement):
                statement = dropped.group(1)  # With SYNC it never ends in these engines.
            return connection.query(statement, "TabSeparated").bytes() or b""
        finally:
            connection.close()

    def insert(self, connection, front, form, body):
        """The rows go through a file: in the query's text, chdb would end them at a line's end."""
        coding = self.headers.get("Content-Encoding", "none")
        with tempfile.NamedTemporaryFile(dir=self.folder) as file:
            file.write(body)
            file.flush()
            if structure := INPUT.search(front):
                rows = f"file('{file.name}', '{form}', '{structure.group(1)}', '{coding}')"
                query = front[: structure.start()] + rows + front[structure.end() :]
            else:
                query = f"{front} FROM INFILE '{file.name}' COMPRESSION '{coding}' FORMAT {form}"
            connection.query(query, "TSV")
        return b""

    def log_message(self, *_):
        pass


def main():
    wheel, data, port, *extra = sys.argv[1:]
    wheel, data = os.path.abspath(wheel), os.path.abspath(data)
    os.makedirs(data, exist_ok=True)
    library = ctypes.CDLL(glob.glob(os.path.join(wheel, "chdb", "_chdb*.so"))[0])
    is_server = hasattr(library, SERVER_MAIN)
    config = configuration(data, int(port), [setting.split("=", 1) for setting in extra], is_server)
    if not is_server:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    stop_when_stdin_ends(is_server)
    if is_server:
        return serve_with_server(library, config)
    sys.path.insert(0, wheel)
    sys.modules.update({name: Absent(name) for name in ("pandas", "pyarrow")})
    import chdb
    from chdb import _chdb

    year, month = map(int, chdb.engine_version.split(".")[:2])
    raised = serve_with_listen(_chdb, data) if (year, month) >= (26, 6) else serve_with_shim(data, int(port))
    print(*raised, sep="\n", end="", file=sys.stderr)
    sys.stderr.flush()
    os._exit(len(raised))  # Some versions do not survive the end of the interpreter.


if __name__ == "__main__":
    sys.exit(main())
