"""Finding a container's init by a number that may mean something else by now."""

import os
import subprocess
import threading

from jaula.oci.commands.delete import open_process
from jaula.oci.container import Record


def record(pid: int) -> Record:
    return Record(id="c", bundle="/b", rootfs="/b/rootfs", pid=pid)


def test_the_number_of_a_session_whose_leader_has_ended_is_no_process() -> None:
    words = ["sh", "-c", "sleep 100 & echo $!"]
    leader = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout is not None
    follower = int(leader.stdout.readline())
    leader.wait()
    try:
        assert open_process(record(leader.pid)) is None
    finally:
        os.kill(follower, 9)
        leader.stdout.close()


def test_the_number_of_a_thread_is_no_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert open_process(record(thread.native_id)) is None
    finally:
        done.set()
        thread.join()


def test_another_process_of_the_number_is_not_taken_for_it() -> None:
    assert open_process(record(os.getpid())) is None
