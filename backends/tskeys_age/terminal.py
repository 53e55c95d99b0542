"""The terminal: what a person is told and asked while a plugin waits for them."""

import os
import termios


class Terminal:
    """The terminal of the session by a descriptor, which works in a child of another session too."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def here(cls) -> "Terminal | None":
        """Return the terminal of this process, or None in a service or a cron job."""
        try:
            return cls(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return None

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def tell(self, text: str) -> None:
        """Print a line, without what could steer the terminal: the text is a plugin's."""
        shown = "".join(c if c.isprintable() else " " for c in text)
        os.write(self.fd, f"tskeys: {shown}\n".encode(errors="replace"))

    def ask(self, text: str, *, hidden: bool) -> str | None:
        """Return what is typed, or None at end of file; nothing shows while it is `hidden`."""
        before = termios.tcgetattr(self.fd)
        try:
            if hidden:
                silent = termios.tcgetattr(self.fd)
                silent[3] &= ~termios.ECHO
                termios.tcsetattr(self.fd, termios.TCSAFLUSH, silent)
            shown = "".join(c if c.isprintable() else " " for c in text)
            os.write(self.fd, f"tskeys: {shown}: ".encode(errors="replace"))
            typed = os.read(self.fd, 4096)
        finally:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, before)
            if hidden:
                os.write(self.fd, b"\n")
        return typed.decode(errors="replace").rstrip("\r\n") if typed else None

    def settings(self) -> list[object]:
        """Return what `restore` brings back after a child was killed while it asked."""
        return list(termios.tcgetattr(self.fd))

    def restore(self, settings: list[object]) -> None:
        """Bring the echo back."""
        termios.tcsetattr(self.fd, termios.TCSADRAIN, settings)  # type: ignore[arg-type]
