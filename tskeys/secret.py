"""The one type that holds a secret."""


class Secret:
    """Hold a secret so that nothing prints, pickles or compares it by accident.

    `reveal()` is the only way out, so that a search for it finds every place where a secret leaves.
    """

    __slots__ = ("_value",)
    _value: bytes

    def __init__(self, value: bytes | bytearray) -> None:
        object.__setattr__(self, "_value", bytes(value))

    def reveal(self) -> bytes:
        """Return the secret itself; write it to nothing but a store, a delivery or a pipe."""
        return self._value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Secret does not change")

    def __repr__(self) -> str:
        return "Secret(**redacted**)"

    def __str__(self) -> str:
        return "**redacted**"

    def __format__(self, spec: str) -> str:
        return "**redacted**"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        import hmac  # late: it costs more than the rest of extract's imports together

        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a dict of secrets would print them by their hash

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __getstate__(self) -> "tuple[object, ...]":
        raise TypeError("a Secret is not pickled")

    def __reduce_ex__(self, protocol: object) -> "tuple[object, ...]":
        raise TypeError("a Secret is not pickled")
