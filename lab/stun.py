"""A STUN server on the public network (Debian's coturn): phones ask it which address they have behind their NAT."""

import subprocess
from pathlib import Path

from lab.netns import Namespace, wait_until

PORT = 3478


class StunServer:
    """A running coturn that answers binding requests, and nothing else, over UDP. It ends with its namespace."""

    def __init__(self, namespace: Namespace, address: str, folder: Path) -> None:
        """Start it; LabError unless it listens within 10 s."""
        folder.mkdir(parents=True, exist_ok=True)
        self.place = f"{address}:{PORT}"
        "HOST:PORT."
        log = folder / "log"
        argv = ["turnserver", "-n", "--stun-only", "--listening-ip", address, "--listening-port", str(PORT)]
        argv += ["--no-tcp", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout", "--simple-log"]
        argv += ["--db", str(folder / "db"), "--pidfile", str(folder / "pid")]
        self._process: subprocess.Popen[bytes] = namespace.start(argv, log, folder)
        wait_until("the STUN server listens", lambda: f":{PORT}" in namespace.run("ss", "-Hlun", "src", address))
