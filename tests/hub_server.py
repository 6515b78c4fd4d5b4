"""A Hugging Face Hub for models on this machine: in memory, over loopback, and able to fail.

It answers what `huggingface_hub`, `transformers` and `sentence-transformers` ask for when they create a
repository, commit to it and download from it. As on the Hub, large files and weights go to a storage of their
own by checksum (git LFS with basic transfer) before the commit that names them, and come from there by a
redirect. Xet storage is not offered: clients are to run with `HF_HUB_DISABLE_XET=1`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER = "hf_writer"
READER = "hf_reader"
USER = "tester"
LARGE = 10 * 2**20
BLOCK = 2**14


@dataclass(frozen=True)
class Blob:
    """A file's content as declared, and as it is served."""

    content: bytes
    is_lfs: bool
    served: bytes | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        if self.is_lfs:
            return self.sha256
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    sha: str
    files: dict[str, Blob]
    message: str = ""


@dataclass
class Repository:
    """Commits and what points to them."""

    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        return self.commits.get(self.refs.get(revision, revision))

    def add(self, ref: str, files: dict[str, Blob], message: str) -> Commit:
        names = "".join(f"{name} {blob.etag}\n" for name, blob in sorted(files.items()))
        sha = hashlib.sha1(f"{len(self.commits)} {message}\n{names}".encode()).hexdigest()
        self.commits[sha] = commit = Commit(sha, files, message)
        self.refs[ref] = sha
        return commit


@dataclass
class Fault:
    """What happens to some requests: an error status, or the connection is dropped after some bytes."""

    method: str
    pattern: str
    status: int | None
    after: int
    times: int


@dataclass(frozen=True)
class Request:
    """A request that was answered, or dropped."""

    method: str
    path: str
    headers: dict[str, str]


class HubServer:
    """The Hub, served while the block of a `with` statement runs.

    Attributes:
        url: Address, for `HF_ENDPOINT`.
        storage_url: Address from which large files are downloaded.
        repositories: By `namespace/name`.
        objects: Large files by SHA-256, whether a commit names them or not.
        requests: All requests so far.
        faults: What goes wrong.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Of another name, or the client would take it for the Hub itself.
        self.storage_url = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # ---------------------------------------------------------------- for tests

    def create(self, repo_id: str, private: bool = False) -> Repository:
        """Make a repository with its first commit."""
        self.repositories[repo_id] = Repository(private)
        attributes = Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", is_lfs=False)
        self.repositories[repo_id].add("main", {".gitattributes": attributes}, "initial commit")
        return self.repositories[repo_id]

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a repository but for `.gitattributes`."""
        commit = self.repositories[repo_id].at(revision)
        assert commit is not None, f"{repo_id} has no {revision}"
        return {name: blob.content for name, blob in commit.files.items() if name != ".gitattributes"}

    def commits(self, repo_id: str) -> list[str]:
        """Return the messages of all commits but the first."""
        return [commit.message for commit in self.repositories[repo_id].commits.values()][1:]

    def tamper(self, repo_id: str, name: str, served: bytes) -> None:
        """Serve other content than is declared."""
        files = self.repositories[repo_id].at("main").files
        files[name] = Blob(files[name].content, files[name].is_lfs, served)

    def fail(
        self, method: str, pattern: str, *, status: int | None = None, after: int = 0, times: int = 10**6
    ) -> None:
        """Refuse the next requests whose path has the pattern, or drop their connection after some bytes."""
        self.faults.append(Fault(method, pattern, status, after, times))

    def paths(self, method: str, pattern: str = "") -> list[str]:
        """Return the paths of the requests so far that have a pattern."""
        return [r.path for r in self.requests if r.method == method and re.search(pattern, r.path)]

    def fault_of(self, method: str, path: str) -> Fault | None:
        """Return the fault that a request meets, which is thereby used up once."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


class _Error(Exception):
    """An answer that is an error, with the headers by which the client knows which."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None):
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message}
        self.headers |= {"X-Error-Code": code} if code else {}
        self.headers |= {"X-Repo-Commit": commit} if commit else {}


class _Dropped(Exception):
    """The connection is to be cut."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.hub.requests.append(Request(self.command, url.path, dict(self.headers)))
        self.fault = self.hub.fault_of(self.command, url.path)
        try:
            self.body = self._read_body()
            if self.fault is not None and self.fault.status is not None:
                raise _Error(self.fault.status, "refused by the test")
            self._route(url.path.strip("/").split("/"))
        except _Error as error:
            self._send_json({"error": error.message}, error.status, error.headers)
        except (_Dropped, ConnectionError):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _read_body(self) -> bytes:
        dropped = self.fault is not None and self.fault.status is None and self.command in ("POST", "PUT")
        body = bytearray()
        for block in self._blocks():
            body += block
            if dropped and len(body) >= self.fault.after:
                raise _Dropped
        if dropped:
            raise _Dropped
        return bytes(body)

    def _blocks(self) -> Any:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (block := self.rfile.read(min(left, BLOCK))):
            left -= len(block)
            yield block

    # ---------------------------------------------------------------- sending

    def _send_json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def _send(self, body: bytes, status: int, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body) if length is None else length),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault is not None and self.fault.status is None:
            self.wfile.write(body[: self.fault.after])
            raise _Dropped
        self.wfile.write(body)

    # ---------------------------------------------------------------- who and where

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _check_writer(self) -> None:
        if not self._token:
            raise _Error(401, "Invalid username or password.")
        if self._token != WRITER:
            raise _Error(403, "You don't have the rights to write here")

    def _repository(self, repo_id: str) -> Repository:
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and self._token not in (WRITER, READER)):
            raise _Error(404 if self._token else 401, "Repository not found", "RepoNotFound")
        return repository

    def _commit(self, repository: Repository, revision: str) -> Commit:
        commit = repository.at(revision)
        if commit is None:
            raise _Error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _route(self, parts: list[str]) -> None:
        parts = [unquote(part) for part in parts]
        with self.hub.lock:
            match parts:
                case ["api", "whoami-v2"]:
                    self._send_json(
                        {"name": USER, "type": "user", "orgs": [], "auth": {"type": "access_token"}}
                    )
                case ["api", "validate-yaml"]:
                    self._send_json({"errors": [], "warnings": []})
                case ["api", "repos", "create"]:
                    self._create()
                case ["api", "models", space, name, *rest]:
                    self._model(f"{space}/{name}", self._repository(f"{space}/{name}"), rest)
                case [space, name, "info", "lfs", "objects", "batch"]:
                    self._lfs_batch(f"{space}/{name.removesuffix('.git')}")
                case ["lfs", "verify"]:
                    wanted = json.loads(self.body)
                    if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
                        raise _Error(404, "The object has not arrived")
                    self._send_json({})
                case ["lfs", oid]:
                    self._store(oid)
                case ["cdn", space, name, sha, *path]:
                    blob = self.hub.repositories[f"{space}/{name}"].commits[sha].files["/".join(path)]
                    self._send_file(blob, {})
                case [space, name, "resolve", revision, *path]:
                    self._resolve(f"{space}/{name}", revision, "/".join(path))
                case _:
                    raise _Error(404, f"No such address: {self.path}")

    # ---------------------------------------------------------------- repositories

    def _create(self) -> None:
        self._check_writer()
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or USER}/{wanted['name']}"
        address = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.hub.repositories:
            self._send_json({"error": "You already created this model repo", **address}, 409)
            return
        self.hub.create(repo_id, wanted.get("visibility") == "private")
        self._send_json(address)

    def _model(self, repo_id: str, repository: Repository, rest: list[str]) -> None:
        match rest:
            case [] | ["revision", _]:
                commit = self._commit(repository, rest[1] if rest else "main")
                self._send_json(self._info(repo_id, repository, commit))
            case ["refs"]:
                branches = [
                    {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha}
                    for name, sha in repository.refs.items()
                ]
                self._send_json({"branches": branches, "converts": [], "tags": []})
            case ["branch", name]:
                self._check_writer()
                if name in repository.refs:
                    raise _Error(409, f"Reference {name} exists already")
                repository.refs[name] = repository.refs["main"]
                self._send_json({})
            case ["tree", revision, *folder]:
                self._tree(self._commit(repository, revision), "/".join(folder))
            case ["preupload", revision]:
                self._check_writer()
                self._preupload(self._commit(repository, revision))
            case ["commit", revision]:
                self._check_writer()
                self._add_commit(repo_id, repository, revision)
            case _:
                raise _Error(404, f"No such address: {self.path}")

    def _info(self, repo_id: str, repository: Repository, commit: Commit) -> dict[str, Any]:
        return {
            "_id": repo_id,
            "id": repo_id,
            "modelId": repo_id,
            "sha": commit.sha,
            "private": repository.private,
            "gated": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": name} for name in commit.files],
        }

    def _tree(self, commit: Commit, folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        entries = [_entry(name, blob) for name, blob in commit.files.items() if name.startswith(prefix)]
        if folder and not entries:
            raise _Error(404, f"{folder} does not exist", "EntryNotFound", commit.sha)
        self._send_json(entries)

    # ---------------------------------------------------------------- uploads

    def _preupload(self, commit: Commit) -> None:
        answers = []
        for wanted in json.loads(self.body)["files"]:
            is_lfs = wanted["size"] > LARGE or wanted["path"].endswith((".safetensors", ".faiss", ".parquet"))
            known = commit.files.get(wanted["path"])
            answers.append(
                {
                    "path": wanted["path"],
                    "uploadMode": "lfs" if is_lfs else "regular",
                    "shouldIgnore": False,
                    "oid": known.etag if known else None,
                }
            )
        self._send_json({"files": answers})

    def _lfs_batch(self, repo_id: str) -> None:
        self._check_writer()
        self._repository(repo_id)
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                answer["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}},
                    "verify": {"href": f"{self.hub.url}/lfs/verify", "header": {}},
                }
            answers.append(answer)
        self._send_json({"transfer": "basic", "objects": answers})

    def _store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Error(400, "The content has another checksum")
        self.hub.objects[oid] = self.body
        self._send_json({})

    def _add_commit(self, repo_id: str, repository: Repository, revision: str) -> None:
        files = dict(self._commit(repository, revision).files)
        message = ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                message = value["summary"]
            elif operation["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise _Error(404, "A file with this name doesn't exist", "EntryNotFound")
            elif operation["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), is_lfs=False)
            elif value["oid"] in self.hub.objects:
                files[value["path"]] = Blob(self.hub.objects[value["oid"]], is_lfs=True)
            else:
                raise _Error(400, f"The large file {value['path']} has not arrived")
        ref = revision
        if self.query.get("create_pr"):
            ref = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in repository.refs)}"
        commit = repository.add(ref, files, message)
        answer = {
            "success": True,
            "commitOid": commit.sha,
            "commitUrl": f"{self.hub.url}/{repo_id}/commit/{commit.sha}",
        }
        if ref != revision:
            answer["pullRequestUrl"] = f"{self.hub.url}/{repo_id}/discussions/{ref.rpartition('/')[2]}"
        self._send_json(answer)

    # ---------------------------------------------------------------- downloads

    def _resolve(self, repo_id: str, revision: str, name: str) -> None:
        commit = self._commit(self._repository(repo_id), revision)
        blob = commit.files.get(name)
        if blob is None:
            raise _Error(404, "Entry not found", "EntryNotFound", commit.sha)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.etag}"'}
        if not blob.is_lfs:
            self._send_file(blob, headers)
            return
        location = f"{self.hub.storage_url}/cdn/{repo_id}/{commit.sha}/{name}"
        linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
        self._send(b"", 302, {**headers, **linked, "Location": location})

    def _send_file(self, blob: Blob, headers: dict[str, str]) -> None:
        content = blob.content if blob.served is None else blob.served
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None:
            # Of a regular file, a HEAD request tells the declared size.
            declared = len(blob.content) if self.command == "HEAD" else None
            self._send(content, 200, headers, declared)
            return
        start = int(asked[1])
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(content[start:], 206, headers)


def _entry(name: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(blob.content), "oid": blob.etag}
    if blob.is_lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
    return entry
