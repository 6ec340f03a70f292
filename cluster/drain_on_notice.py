"""Started beside Ray on a spot node: when the cloud says that it takes the node back, tell Ray.

Ray then puts nothing more on the node, and a trial on it learns that it has a moment for a checkpoint.
`python drain_on_notice.py aws|gcp`; ends with the notice. Standard library and the `ray` command only.
"""

import argparse
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

#: Seconds between two looks.
INTERVAL = 2.0


def aws_notice(base: str) -> bool:
    """Whether EC2 has announced an interruption (two minutes ahead)."""
    token = _request(f"{base}/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    try:
        _request(f"{base}/latest/meta-data/spot/instance-action", "GET", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:  # what it says as long as there is none
            return False
        raise
    return True


def gcp_notice(base: str) -> bool:
    """Whether Compute Engine has announced a preemption (thirty seconds ahead)."""
    return _request(f"{base}/computeMetadata/v1/instance/preempted", "GET", {"Metadata-Flavor": "Google"}) == "TRUE"


#: Where each cloud's metadata is, how it is read, and the seconds left from the notice on, less what reading it takes.
CLOUDS: dict[str, tuple[str, Callable[[str], bool], int]] = {
    "aws": ("http://169.254.169.254", aws_notice, 110),
    "gcp": ("http://metadata.google.internal", gcp_notice, 25),
}


def _request(url: str, method: str, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as response:
        return str(response.read().decode()).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Drain this Ray node when its cloud announces that it takes it back.")
    parser.add_argument("cloud", choices=CLOUDS)
    parser.add_argument("--metadata", metavar="URL", help="the metadata service, instead of the cloud's own")
    arguments = parser.parse_args()
    base, noticed, seconds = CLOUDS[arguments.cloud]
    while True:
        try:
            if noticed(arguments.metadata or base):
                break
        except OSError as error:  # refused, timed out, a server error: look again
            print(f"{time.strftime('%H:%M:%S')} {error}", flush=True)
        time.sleep(INTERVAL)
    print(f"{time.strftime('%H:%M:%S')} taken back in {seconds} s", flush=True)
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", f"{arguments.cloud} takes the node back"]
    subprocess.run(["ray", "drain-node", *reason, "--deadline-remaining-seconds", str(seconds)], check=True)


if __name__ == "__main__":
    main()
