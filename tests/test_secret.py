import copy
import dataclasses
import hmac
import json
import logging
import pickle
import pprint
import sys
import traceback

import pytest
from support import KEY, SECRET

from tskeys.secret import Secret


@dataclasses.dataclass
class Holder:
    name: str
    secret: Secret


@pytest.fixture
def secret() -> Secret:
    return Secret(KEY)


def test_reveal_is_the_way_out(secret: Secret) -> None:
    assert secret.reveal() == KEY
    assert type(Secret(bytearray(KEY)).reveal()) is bytes


def test_nothing_prints_it(secret: Secret) -> None:
    holder = Holder("web", secret)
    shown = [
        str(secret),
        repr(secret),
        ascii(secret),
        format(secret),
        f"{secret} {secret!r} {secret!s:>80} {secret:x} {secret:>40.3}",
        f"{secret} {secret!r} {[secret]}",
        "%s %r" % (secret, secret),  # noqa: UP031
        "%s %r" % ([secret], {"key": (secret, {"deep": secret})}),  # noqa: UP031
        repr(holder),
        repr(dataclasses.asdict(holder)),
        repr(dataclasses.replace(holder, name="db")),
        pprint.pformat({"key": [secret, holder]}),
        json.dumps({"key": secret}, default=str),
        json.dumps({"key": secret}, default=repr),
        repr(Exception(secret)),
        str(ValueError("bad", secret)),
        repr(dir(secret)),
        repr(sys.exc_info()),
    ]
    assert [text for text in shown if SECRET in text] == []
    assert "**redacted**" in str(secret)


def test_json_refuses_it(secret: Secret) -> None:
    with pytest.raises(TypeError) as refused:
        json.dumps({"key": secret})
    assert SECRET not in str(refused.value)


def test_logging_does_not_print_it(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("tskeys.test").debug("a %s b %r c %s", secret, [secret], {"d": secret})
        try:
            raise ValueError("bad", secret)
        except ValueError:
            logging.getLogger("tskeys.test").exception("failed with %(key)s", {"key": secret})
    assert "a **redacted** b" in caplog.text
    assert "failed with **redacted**" in caplog.text
    assert SECRET not in caplog.text


def test_a_traceback_with_locals_does_not_print_it(secret: Secret) -> None:
    def fail(mine: Secret) -> None:
        kept = {"web": [mine]}
        raise ValueError(f"{mine} of {len(kept)}")

    with pytest.raises(ValueError, match="redacted") as failure:
        fail(secret)
    error = failure.value
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "kept = " in told
    assert SECRET not in told


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(secret: Secret, protocol: int) -> None:
    for holder in (secret, [secret], Holder("web", secret)):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(holder, protocol=protocol)
    with pytest.raises(TypeError):
        secret.__reduce__()
    with pytest.raises(TypeError):
        secret.__getstate__()


def test_a_copy_is_the_same_object(secret: Secret) -> None:
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"a": [secret]})["a"][0] is secret
    assert dataclasses.asdict(Holder("web", secret))["secret"] is secret


def test_it_does_not_change(secret: Secret) -> None:
    for name in ("_value", "other"):
        with pytest.raises(AttributeError):
            setattr(secret, name, b"x")
        with pytest.raises(AttributeError):
            delattr(secret, name)
    source = bytearray(KEY)
    other = Secret(source)
    source[:] = b"x" * len(source)
    assert other.reveal() == secret.reveal() == KEY


def test_it_has_no_dict_and_no_hash(secret: Secret) -> None:
    with pytest.raises(TypeError):
        vars(secret)
    with pytest.raises(TypeError):
        hash(secret)


def test_comparison_takes_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert Secret(b"a" * 20) == Secret(b"a" * 20)
    assert Secret(b"a" * 20) != Secret(b"b" * 20)
    assert Secret(b"a") != Secret(b"")
    assert compared == [(b"a" * 20, b"a" * 20), (b"a" * 20, b"b" * 20), (b"a", b"")]


def test_it_is_equal_to_nothing_but_a_secret(secret: Secret) -> None:
    others: list[object] = [KEY, KEY.decode(), None, object()]
    assert not any(secret == other for other in others)
