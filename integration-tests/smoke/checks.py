"""Runs the checks of one Python library and prints a line for each. The contract is in ../README.md."""

import os
import select
import sys
import threading
import time

CHECKS = (
    "codec_none codec_gzip codec_snappy codec_lz4 codec_zstd group_consume group_rebalance idempotence "
    "transaction_commit_abort transaction_offsets seek timestamp_lookup headers large_record empty_record tombstone "
    "admin_topics admin_config reconnect"
).split()
# A check that takes longer than this hangs.
LIMIT_SECONDS = 120


class Skipped(Exception):
    """The library can't do what the check asks for."""


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: {str(got)[:200]} instead of {str(wanted)[:200]}")


def until(what, condition, seconds=30):
    """What CONDITION returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come about")
        time.sleep(0.05)
    return result


def texts(count, start=0):
    """Records that compress well."""
    return [f"record {i} ".encode() * 10 for i in range(start, start + count)]


def restart_broker():
    """Returns once the broker was killed and started again; skips where it is not ours."""
    print("restart", flush=True)
    if not select.select([sys.stdin], [], [], LIMIT_SECONDS)[0] or sys.stdin.readline().strip() != "restarted":
        raise Skipped("this broker can't be restarted")


def one(check, result):
    try:
        check()
        result.append("ok")
    except Skipped as reason:
        result.append(f"skipped: {reason}")
    except BaseException as error:  # whatever a library throws is a failure of the check
        result.append(f"failed: {type(error).__name__}: {error}")


def run(client):
    """CLIENT has a method for each of CHECKS, and for those it names in `more`."""
    failed = False
    for name in [*CHECKS, *getattr(client, "more", ())]:
        result = []
        thread = threading.Thread(target=one, args=(getattr(client, name), result), daemon=True)
        thread.start()
        thread.join(LIMIT_SECONDS)
        word, _, reason = (result or [f"failed: no end within {LIMIT_SECONDS} s"])[0].partition(": ")
        failed = failed or word == "failed"
        print(f"{word} {name.replace('_', '-')}" + (": " + " ".join(reason.split()) if reason else ""), flush=True)
    # Not sys.exit: a library's threads may hang.
    os._exit(1 if failed else 0)


def arguments():
    """--bootstrap and --prefix."""
    words = sys.argv[1:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    return options["--bootstrap"], options["--prefix"]
