"""A schema registry's wire format: serializers for Avro, JSON Schema and Protobuf (`pip install
"kafka-ext[registry]"`).

What is sent is a zero byte, the schema's id in four bytes, and the data; for Protobuf also which
message of the schema it is.
"""

from __future__ import annotations

import base64
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from ._rdkafka import Monitor, redact, shown_url

if TYPE_CHECKING:
    import httpx

__all__ = [
    "AvroSerializer",
    "JsonSchemaSerializer",
    "ProtobufSerializer",
    "RegistryError",
    "SchemaRegistry",
]

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_ATTEMPTS = 4
_FIRST_PAUSE = 0.1
# What an answer may have: a schema of megabytes is no schema. And how much of its words an
# exception repeats.
_MAX_ANSWER = 16 << 20
_MAX_MESSAGE = 500
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

# From a topic and a record's name (Avro: namespace and name; Protobuf: the message's full name;
# JSON Schema: its title) to a subject.
SubjectOf: TypeAlias = Callable[[str, str], str]


def _needs(module: str, package: str, extra: str = "registry") -> Any:
    try:
        return import_module(module)
    except ImportError as exc:
        how = f'pip install "kafka-ext[{extra}]"' if extra else f"pip install {package}"
        raise ImportError(f"kafka_ext.registry needs {package}: {how}") from exc


class RegistryError(Exception):
    """The schema registry refused, or did not answer.

    Attributes:
        status (int | None): the HTTP status; None when there was no answer.
        code (int | None): the registry's own code, such as 40401 (no such subject), 409 (not
            compatible).
    """

    def __init__(self, message: str, status: int | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status, self.code), vars(self)


class SchemaRegistry:
    """A schema registry, by its HTTP API. Thread-safe, picklable, usable after a fork; what it has
    learnt it does not ask again.

    Args:
        url: such as `https://registry.example:8081`. A user and password in it count as `auth`.
        auth: user and password for HTTP basic authentication.
        headers: sent with each request, such as `{"Authorization": "Bearer …"}`.
        timeout: seconds for one request. One that fails by the connection or with a status of 5xx
            is tried four times in all.
        verify: False, or the path of a CA file, for TLS (httpx's `verify`).

    Raises:
        ImportError: httpx is not installed; it names the extra.
        ValueError: the URL is no http or https URL.

    Warns (UserWarning) when credentials would go over plain http to another machine. Neither its
    `repr` nor its errors show credentials; a pickle has them. An answer of more than 16 MiB, or
    compressed, is refused.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        verify: bool | str = True,
    ) -> None:
        if not isinstance(url, str):
            raise TypeError(f"url must be a str, not {type(url).__name__}")
        _needs("httpx", "httpx")
        parts = _checked_url(url)
        if parts.username is not None:
            auth = auth or (unquote(parts.username), unquote(parts.password or ""))
            url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._settings = (url, auth, dict(headers or {}), timeout, verify)
        self._start()
        if self._has_credentials and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            warnings.warn(
                f"{self!r}: credentials go over plain http, readable by anybody on the way; use"
                " https",
                stacklevel=2,
            )

    def _start(self) -> None:
        self._lock = Monitor()
        self._client: httpx.Client | None = None
        self._owner = os.getpid()
        self._ids: dict[tuple[Any, ...], int] = {}
        _, auth, headers, _, _ = self._settings
        credentials = [auth[1]] if auth is not None else []
        credentials += [value for name, value in headers.items() if _is_credential(name)]
        self._has_credentials = any(credentials)
        self._secrets = tuple(
            text for text in credentials if len(text) >= 4
        )  # less would be found in any text

    def __getstate__(self) -> Any:
        return self._settings

    def __setstate__(self, state: Any) -> None:
        self._settings = state
        self._start()

    def __repr__(self) -> str:
        return f"SchemaRegistry({shown_url(self._settings[0])!r})"

    def register(
        self, subject: str, schema: str, kind: str = "AVRO", references: tuple[Any, ...] = ()
    ) -> int:
        """The id of `schema` under `subject`, where it is registered if it was not. Raises
        RegistryError.

        Source: POST /subjects/(subject)/versions.
        """
        return self._id_of("/versions", subject, schema, kind, references)

    def lookup(
        self, subject: str, schema: str, kind: str = "AVRO", references: tuple[Any, ...] = ()
    ) -> int:
        """The id of `schema` under `subject`, where it must be registered already. Raises
        RegistryError.

        Source: POST /subjects/(subject).
        """
        return self._id_of("", subject, schema, kind, references)

    def latest(self, subject: str) -> tuple[int, str]:
        """The id and the text of the newest schema of `subject`; asked each time. Raises
        RegistryError.

        Source: GET /subjects/(subject)/versions/latest.
        """
        answer = self._ask("GET", f"{_path_of(subject)}/versions/latest")
        return self._number(answer, "id"), self._field(answer, "schema", str)

    def version(
        self, subject: str, schema: str, kind: str, references: tuple[Any, ...] = ()
    ) -> int:
        """The version that `schema` has under `subject`. Raises RegistryError. Source: POST
        /subjects/(subject).
        """
        return self._number(
            self._ask("POST", _path_of(subject), _document(schema, kind, references)), "version"
        )

    def _id_of(
        self, where: str, subject: str, schema: str, kind: str, references: tuple[Any, ...]
    ) -> int:
        asked = (where, subject, schema, kind, json.dumps(references))
        found = self._ids.get(asked)
        if found is None:
            answer = self._ask(
                "POST", f"{_path_of(subject)}{where}", _document(schema, kind, references)
            )
            found = self._ids[asked] = self._number(answer, "id")
        return found

    def _field(self, answer: Mapping[str, Any], name: str, kind: type) -> Any:
        value = answer.get(name)
        if type(value) is not kind:
            raise RegistryError(f"{self!r} answered without a proper {name!r}")
        return value

    def _number(self, answer: Mapping[str, Any], name: str) -> int:
        number: int = self._field(answer, name, int)
        if not 0 <= number <= 0x7FFFFFFF:
            raise RegistryError(f"{self!r} answered with an {name!r} out of range")
        return number

    def _ask(self, method: str, path: str, document: Any = None) -> Mapping[str, Any]:
        pause = _FIRST_PAUSE
        what = f"{self!r}: {method} {path}"
        for attempt in range(1, _ATTEMPTS + 1):
            status, content = self._try(method, path, document)
            if status is not None and (status < 500 or attempt == _ATTEMPTS):
                return self._content(status, content, what)
            if attempt == _ATTEMPTS:
                break
            time.sleep(pause)
            pause *= 2
        # Not from httpx's own exception, which holds the request with its credentials.
        raise RegistryError(
            self._said(f"{self!r} did not answer {method} {path}: {content.decode()}")
        )

    def _try(self, method: str, path: str, document: Any) -> tuple[int | None, bytes]:
        """The status and the body of one request; None and the reason when there was no answer."""
        httpx = _needs("httpx", "httpx")
        end = time.monotonic() + self._settings[3]
        body = bytearray()
        try:
            with self._http().stream(method, path, json=document) as answer:
                if answer.headers.get("content-encoding", "identity") != "identity":
                    return 0, b"the answer is compressed, though that was not asked for"
                for chunk in answer.iter_raw():
                    body += chunk
                    if len(body) > _MAX_ANSWER:
                        return 0, b"the answer is longer than 16 MiB"
                    if time.monotonic() > end:
                        return None, b"the answer took too long"
                return answer.status_code, bytes(body)
        except httpx.HTTPError as exc:
            return None, f"{type(exc).__name__}: {exc}".encode(errors="replace")

    def _content(self, status: int, body: bytes, what: str) -> Mapping[str, Any]:
        content, problem = _parsed(body)
        if status == 200 and isinstance(content, dict):
            return content
        if status == 0:
            raise RegistryError(f"{what}: {body.decode()}")
        code = message = None
        if isinstance(content, dict):
            code, message = content.get("error_code"), content.get("message")
        words = message if isinstance(message, str) else problem
        raise RegistryError(
            self._said(f"{what}: {status} {words}"), status, code if type(code) is int else None
        )

    def _said(self, text: str) -> str:
        """A message of bounded length, printable, without what a registry may have echoed of the
        credentials.
        """
        text = redact(text, self._secrets)
        text = text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"
        return "".join(letter if letter.isprintable() else " " for letter in text)

    def _http(self) -> httpx.Client:
        with self._lock:
            if (
                self._client is None or self._owner != os.getpid()
            ):  # the parent's connections are not ours
                httpx = _needs("httpx", "httpx")
                url, auth, headers, timeout, verify = self._settings
                self._client = httpx.Client(
                    base_url=url,
                    auth=auth,
                    # Not compressed: what a few bytes unpack to is not known before they have.
                    headers={
                        "Accept": _MEDIA_TYPE,
                        "Content-Type": _MEDIA_TYPE,
                        "Accept-Encoding": "identity",
                    }
                    | headers,
                    timeout=timeout,
                    verify=verify,
                )
                self._owner = os.getpid()
            return self._client

    def close(self) -> None:
        """Close its connections. It can be used again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._owner == os.getpid():
            client.close()


def _document(schema: str, kind: str, references: tuple[Any, ...]) -> dict[str, Any]:
    document: dict[str, Any] = {"schema": schema}
    if kind != "AVRO":  # what is not said is Avro, also to a registry that knows nothing else
        document["schemaType"] = kind
    if references:
        document["references"] = list(references)
    return document


def _checked_url(url: str) -> Any:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for one that is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"url must be a URL such as https://registry.example:8081, not {shown_url(url)!r}"
        )
    return parts


def _is_credential(header: str) -> bool:
    return any(
        word in header.lower() for word in ("auth", "key", "token", "secret", "cookie", "password")
    )


def _path_of(subject: str) -> str:
    """Where a subject is. No subject asks for another path: `..` stays `..` however it
    is quoted.
    """
    if not isinstance(subject, str):
        raise TypeError(f"subject must be a str, not {type(subject).__name__}")
    if subject in ("", ".", "..") or subject != subject.encode(errors="replace").decode():
        raise ValueError(f"subject must be a name, not {subject!r}")
    return f"/subjects/{quote(subject, safe='')}"


def _parsed(text: bytes | str) -> tuple[Any, str]:
    """What JSON says, and what is wrong with it. A registry can send anything."""
    try:
        return json.loads(text), "an answer without a message"
    except RecursionError:
        return None, "JSON that is nested too deeply"
    except ValueError:  # a UnicodeDecodeError is one, and so is an integer of too many digits
        return None, "no JSON"


class _Serializer:
    """What the three have in common: the subject, and the id that stands before the data."""

    _kind: str
    _after_id = b""

    def __init__(
        self,
        registry: SchemaRegistry,
        *,
        is_key: bool,
        subject: str | SubjectOf | None,
        auto_register: bool,
    ) -> None:
        if not isinstance(registry, SchemaRegistry):
            raise TypeError(f"registry must be a SchemaRegistry, not {type(registry).__name__}")
        if subject is not None and not isinstance(subject, str) and not callable(subject):
            raise TypeError(
                f"subject must be a str, a callable or None, not {type(subject).__name__}"
            )
        self._registry = registry
        self._is_key = is_key
        self._subject = subject
        self._auto_register = auto_register
        self._prefixes: dict[str, bytes] = {}

    def _subject_of(self, topic: str, name: str) -> str:
        if isinstance(self._subject, str):
            return self._subject
        if self._subject is not None:
            return self._subject(topic, name)
        return f"{topic}-{'key' if self._is_key else 'value'}"

    def _find_id(self, subject: str, schema: str, references: tuple[Any, ...] = ()) -> int:
        ask = self._registry.register if self._auto_register else self._registry.lookup
        return ask(subject, schema, self._kind, references)

    def _prefix(self, topic: str) -> bytes:
        """What stands before the data. The registry is asked once for each topic."""
        prefix = self._prefixes.get(topic)
        if prefix is None:
            prefix = self._prefixes[topic] = (
                b"\0" + self._schema_id(topic).to_bytes(4, "big") + self._after_id
            )
        return prefix

    def _schema_id(self, topic: str) -> int:
        raise NotImplementedError

    def prepare(self, topic: str) -> None:
        """Ask the registry now for what the first record for `topic` would ask it: `send` and
        `try_send` do not wait for it then.
        """
        self._prefix(topic)


class AvroSerializer(_Serializer):
    """Objects (dicts, as fastavro takes them) as Avro, for `value_serializer` or `key_serializer`.

    Args:
        registry: where the schema is, or is put.
        schema: the schema as JSON text or as what that parses to; None takes the subject's newest
            when a topic is first written to.
        is_key: it is for keys: the subject is `topic-key`, not `topic-value`.
        subject: another subject, or a callable `(topic, record_name) -> subject`.
        auto_register: register the schema where it is not; False insists that it is there.
        to_avro: called with each object first, to make of it what fastavro takes.

    Raises:
        ImportError: fastavro is not installed; it names the extra.
        Exception: what fastavro raises for a schema that is none (SchemaParseException,
            UnknownType).

    `send` raises what fastavro raises for an object that does not fit, and RegistryError. The first
    record for a topic asks the registry, and waits for it. Thread-safe, picklable.
    """

    _kind = "AVRO"

    def __init__(
        self,
        registry: SchemaRegistry,
        schema: str | Mapping[str, Any] | list[Any] | None = None,
        *,
        is_key: bool = False,
        subject: str | SubjectOf | None = None,
        auto_register: bool = True,
        to_avro: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(registry, is_key=is_key, subject=subject, auto_register=auto_register)
        fastavro = _needs("fastavro", "fastavro")
        self._to_avro = to_avro
        self._schema: Any = None
        self._by_topic: dict[str, Any] = {}
        if schema is not None:
            self._text = schema if isinstance(schema, str) else json.dumps(schema)
            self._schema = fastavro.parse_schema(json.loads(self._text))

    def _schema_id(self, topic: str) -> int:
        if self._schema is not None:
            self._by_topic[topic] = self._schema
            name = self._schema.get("name", "") if isinstance(self._schema, dict) else ""
            return self._find_id(self._subject_of(topic, name), self._text)
        subject = self._subject_of(topic, "")
        found, text = self._registry.latest(subject)
        schema, problem = _parsed(text)
        if schema is not None:
            try:
                schema = _needs("fastavro", "fastavro").parse_schema(schema)
            except Exception as exc:  # noqa: BLE001 - whatever fastavro makes of what a registry has sent
                schema, problem = None, type(exc).__name__
        if schema is None:
            raise RegistryError(
                f"{self._registry!r}: the newest schema of {subject!r} is no Avro schema: {problem}"
            )
        self._by_topic[topic] = schema
        return found

    def serialize(self, topic: str, data: Any) -> bytes:
        """`data` in the wire format."""
        out = io.BytesIO()
        out.write(self._prefix(topic))
        if self._to_avro is not None:
            data = self._to_avro(data)
        _needs("fastavro", "fastavro").schemaless_writer(out, self._by_topic[topic], data)
        return out.getvalue()


class JsonSchemaSerializer(_Serializer):
    """Objects as JSON under a JSON Schema, for `value_serializer` or `key_serializer`.

    Args:
        registry: where the schema is, or is put.
        schema: the schema as JSON text or as what that parses to.
        is_key: it is for keys: the subject is `topic-key`, not `topic-value`.
        subject: another subject, or a callable `(topic, title) -> subject`.
        auto_register: register the schema where it is not; False insists that it is there.
        validate: hold each object against the schema before it is sent (needs jsonschema); what
            does not fit raises its ValidationError.
        to_json: called with each object first, to make of it what `json.dumps` takes.
    """

    _kind = "JSON"

    def __init__(
        self,
        registry: SchemaRegistry,
        schema: str | Mapping[str, Any],
        *,
        is_key: bool = False,
        subject: str | SubjectOf | None = None,
        auto_register: bool = True,
        validate: bool = False,
        to_json: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(registry, is_key=is_key, subject=subject, auto_register=auto_register)
        self._text = schema if isinstance(schema, str) else json.dumps(schema)
        self._schema = json.loads(self._text)
        self._to_json = to_json
        self._validator: Any = None
        if validate:
            self._make_validator()

    def _make_validator(self) -> None:
        of_schema = _needs("jsonschema", "jsonschema", "").validators.validator_for(self._schema)
        of_schema.check_schema(self._schema)
        self._validator = of_schema(self._schema)

    def __getstate__(self) -> Any:
        return vars(self) | {"_validator": self._validator is not None}  # one cannot be pickled

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state)
        if self._validator:
            self._make_validator()
        else:
            self._validator = None

    def _schema_id(self, topic: str) -> int:
        title = self._schema.get("title", "") if isinstance(self._schema, dict) else ""
        return self._find_id(self._subject_of(topic, title), self._text)

    def serialize(self, topic: str, data: Any) -> bytes:
        """`data` in the wire format."""
        if self._to_json is not None:
            data = self._to_json(data)
        if self._validator is not None:
            self._validator.validate(data)
        return (
            self._prefix(topic)
            + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
        )


class ProtobufSerializer(_Serializer):
    """Protobuf messages, for `value_serializer` or `key_serializer`. Needs protobuf itself, as
    whoever has a message class does.

    Args:
        registry: where the schema is, or is put: the file that defines the message, and those it
            imports under their own names.
        message_type: the class of the messages.
        is_key: it is for keys: the subject is `topic-key`, not `topic-value`.
        subject: another subject, or a callable `(topic, full_name) -> subject`.
        auto_register: register the schema where it is not; False insists that it is there.
    """

    _kind = "PROTOBUF"

    def __init__(
        self,
        registry: SchemaRegistry,
        message_type: Any,
        *,
        is_key: bool = False,
        subject: str | SubjectOf | None = None,
        auto_register: bool = True,
    ) -> None:
        super().__init__(registry, is_key=is_key, subject=subject, auto_register=auto_register)
        if not hasattr(message_type, "DESCRIPTOR"):
            raise TypeError(
                f"message_type must be a class of protobuf messages, not {message_type!r}"
            )
        self._type = message_type
        self._after_id = _message_index(message_type.DESCRIPTOR)

    def _schema_id(self, topic: str) -> int:
        descriptor = self._type.DESCRIPTOR
        subject = self._subject_of(topic, descriptor.full_name)
        return self._find_id(
            subject, _file_text(descriptor.file), self._references(descriptor.file)
        )

    def _references(self, file: Any) -> tuple[Any, ...]:
        """What a file imports, each registered before it. What comes with protobuf itself every
        registry knows.
        """
        references = []
        for imported in file.dependencies:
            if imported.name.startswith("google/protobuf/"):
                continue
            inner = self._references(imported)
            text = _file_text(imported)
            self._find_id(imported.name, text, inner)
            version = self._registry.version(imported.name, text, self._kind, inner)
            references.append({"name": imported.name, "subject": imported.name, "version": version})
        return tuple(references)

    def serialize(self, topic: str, data: Any) -> bytes:
        """`data` in the wire format."""
        if not isinstance(data, self._type):
            raise TypeError(
                f"a {self._type.DESCRIPTOR.full_name} is to be serialized, not a"
                f" {type(data).__name__}"
            )
        serialized: bytes = data.SerializeToString()
        return self._prefix(topic) + serialized


def _file_text(file: Any) -> str:
    """A .proto file as registries take it beside its source: its descriptor, in base64."""
    return base64.standard_b64encode(file.serialized_pb).decode()


def _message_index(descriptor: Any) -> bytes:
    """Which message of its file it is: the indexes from the outermost to it, as zigzag varints
    after their number; for the first, a 0.
    """
    path = []
    while descriptor.containing_type is not None:
        path.append(
            [inner.name for inner in descriptor.containing_type.nested_types].index(descriptor.name)
        )
        descriptor = descriptor.containing_type
    path.append(list(descriptor.file.message_types_by_name).index(descriptor.name))
    if path == [0]:
        return b"\0"
    return b"".join(_varint(2 * number) for number in (len(path), *reversed(path)))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
