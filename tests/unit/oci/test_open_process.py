"""Opening a container's init by a pid that may have been reused."""

import os
import subprocess
import threading

from jaula.oci.runtime_container import Record, open_process


def record(pid: int) -> Record:
    return Record(id="c", bundle="/b", rootfs="/b/rootfs", pid=pid)


def test_the_pid_of_a_session_without_its_leader_is_not_a_process() -> None:
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


def test_a_thread_id_is_not_a_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert open_process(record(thread.native_id)) is None
    finally:
        done.set()
        thread.join()


def test_another_process_with_the_pid_is_not_the_container() -> None:
    assert open_process(record(os.getpid())) is None
