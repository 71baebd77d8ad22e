"""The command lines to compare; scenes are independent of each other.

Containers are named ``t-...``, images ``tr/...``, networks and volumes ``tr-...``. Leftovers of a
scene are removed by these names.
"""

from __future__ import annotations

from harness.transcript import Scene, Step

IMAGE = "busybox"


def step(line: str, *more: str, **options: object) -> Step:
    """Return a step: ``line`` is split at spaces, ``more`` are words that contain spaces."""
    return Step((*line.split(), *more), **options)  # type: ignore[arg-type]


DOCKER_INIT = (r"A /sbin(/docker-init)?\n", "", "docker mounts its init into the layer")

SLEEPER = f"run -d --init --name t-1 --stop-timeout 1 {IMAGE} sleep 300"
OWN_WORDS = (
    r"(?s)Error response from daemon: .*?(\nSee 'docker run --help'\.)?\n$",
    "Error response from daemon: ...\n",
    "the reason is told in the engine's own words, and may be found at create instead of start",
)

OWNER = (r',\n +"Owner": "0"', "", "the owner is this engine's own")

INIT_NAME = (r"docker-init|tini\S*", "init", "the name of the init program")

MTU_HINT = (r" \(com.docker.network.driver.mtu is [^)]*\)", "", "further words")

HINT = (r" \(must be [^)]*\)", "", "the engine's own words after Docker's")
ONLY = (r" \(only [^)]*\)", "", "the engine's own words after Docker's")
NO_NUMBER = (
    r"invalid port '.*|strconv\.ParseUint.*",
    "not a number",
    "the reason, which is Go's",
)

SYSLOG = "--log-opt syslog-address=udp://127.0.0.1:9"
GELF = "--log-opt gelf-address=udp://127.0.0.1:9"

LIFE = Scene(
    "life",
    (
        step(
            f"create --name t-1 --label a=b {IMAGE} sh -c",
            "echo out; sleep 0.3; echo err >&2; sleep 300",
        ),
        step("ps -a --filter name=t-1 --format {{.Names}}|{{.Status}}|{{.Command}}|{{.Ports}}"),
        step("start t-1"),
        step("start t-1"),
        step("ps --filter name=t-1 --format {{.Names}}|{{.Image}}|{{.State}}|{{.Labels}}"),
        step("ps --filter name=t-1", columns=True),
        step("ps -a --no-trunc --filter name=t-1", columns=True),
        step("ps -q --filter name=nothing"),
        step(
            "ps -a --filter label=a=b --filter status=running --format json", differs="a document"
        ),
        step("exec t-1 sleep 0.5"),
        step("logs t-1"),
        step("logs --tail 1 t-1"),
        step("pause t-1"),
        step("ps --filter name=t-1 --format {{.Status}}"),
        step("pause t-1"),
        step("exec t-1 true"),
        step("attach t-1"),
        step("rm t-1"),
        step("unpause t-1"),
        step("unpause t-1"),
        step("rename t-1 t-2"),
        step("rename t-2 t-2"),
        step("rename absent t-2"),
        step("rename t-2 -bad-"),
        step("kill -s WINCH t-2"),
        step("kill -s NOSUCH t-2"),
        step("rm t-2"),
        step("kill t-2"),
        step("wait t-2"),
        step("kill t-2"),
        step("ps -a --filter name=t-2 --format {{.Status}}"),
        step("inspect -f {{.State.ExitCode}}:{{.State.OOMKilled}}:{{.RestartCount}} t-2"),
        step("rm t-2"),
        step("rm t-2"),
        step("rm -f t-2"),
    ),
)

RUN = Scene(
    "run",
    (
        step(f"run --rm {IMAGE} echo hi"),
        step(f"run --rm {IMAGE} sh -c", "echo err >&2; exit 7"),
        step(f"run --rm -i {IMAGE} cat", input="through\n"),
        step(f"run --rm {IMAGE} nonesuch", but=(OWN_WORDS,)),
        step(f"run --rm {IMAGE} /etc", but=(OWN_WORDS,)),
        step("run --rm tr/absent:1 true", differs="no registry is in reach of either"),
        step("run --rm --pull never tr/absent:1 true"),
        step(
            f"run --rm -w /tmp -e A=b -u 33:33 -h box {IMAGE} sh -c", "pwd; echo $A; id; hostname"
        ),
        step(f"run --rm --read-only {IMAGE} touch /x"),
        step(
            f"run --rm --tmpfs /t:size=64k {IMAGE} sh -c", "dd if=/dev/zero of=/t/x bs=1k count=99"
        ),
        step(f"run --rm --entrypoint /bin/echo {IMAGE} a b"),
        step(f"run --rm --cap-drop ALL {IMAGE} sh -c", "grep Cap /proc/self/status"),
        step(f"run --rm --ulimit nofile=64:128 {IMAGE} sh -c", "ulimit -n; ulimit -Hn"),
        step(f"run --rm --network none {IMAGE} ip -o link"),
        step(f"run --rm --add-host api:10.0.0.9 {IMAGE} tail -n 2 /etc/hosts", columns=True),
        step(
            f"run --rm --dns 9.9.9.9 --dns-search a.test {IMAGE} cat /etc/resolv.conf",
            but=((r"(?m)^#.*\n|^\n", "", "comments"),),
        ),
        step(f"run -d --name t-1 {IMAGE} true"),
        step(f"run -d --name t-1 {IMAGE} true"),
        step("wait t-1"),
        step("start -a t-1"),
    ),
)

FLAGS = Scene(
    "flags",
    (
        step(f"run -d --name t-1 --ipc shareable --stop-timeout 0 {IMAGE} sleep 300"),
        step(f"run --rm --ipc container:t-1 {IMAGE} true"),
        step(f"run --rm --ipc container:absent {IMAGE} true"),
        step(f"run --rm --pid container:t-1 {IMAGE} sh -c", "ps -o pid,comm | head -n 2"),
        step(f"run --rm --pid container:absent {IMAGE} true"),
        step(f"run --rm --network container:t-1 {IMAGE} sh -c", "hostname -i | wc -w"),
        step(f"create --name t-2 --pid container:t-1 --link t-1:al {IMAGE} true"),
        step("inspect -f {{.HostConfig.PidMode}}|{{.HostConfig.Links}} t-2"),
        step("rm -f t-1"),
        step("start t-2", but=(OWN_WORDS,)),
        step("rm t-2"),
        step(f"run --rm --init {IMAGE} sh -c", "ps -o pid,comm | sed -n 2p"),
        step(
            f"run --rm --ulimit nofile=100:200 --ulimit core=0 --ulimit stack=1048576 {IMAGE}",
            "sh",
            "-c",
            "ulimit -n; ulimit -Hn; ulimit -c; ulimit -s",
        ),
        step(f"run --rm --ulimit nosuch=1 {IMAGE} true"),
        step(f"run --rm --ulimit nofile=200:100 {IMAGE} true"),
        step(f"run --rm --device /dev/zero:/dev/x {IMAGE} sh -c", "head -c 3 /dev/x | wc -c"),
        step(f"run --rm --device /dev/null:bad:xyz {IMAGE} true"),
        step(f"run --rm --device-cgroup-rule bogus {IMAGE} true"),
        step(f"run --rm --gpus all {IMAGE} true", but=(OWN_WORDS,)),
        step(
            f"run --rm --cpuset-cpus 0 --cpu-shares 512 {IMAGE} sh -c",
            "grep Cpus_allowed_list /proc/self/status",
        ),
        step(
            f"run --rm --pids-limit 5 {IMAGE} sh -c",
            "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait",
        ),
        step(f"run --rm --oom-score-adj 300 {IMAGE} cat /proc/self/oom_score_adj"),
        step(f"run --name t-2 -m 20m {IMAGE} tail /dev/zero"),
        step("inspect -f {{.State.OOMKilled}}|{{.State.ExitCode}}|{{.State.Status}} t-2"),
        step("rm t-2"),
        step(f"run --rm --shm-size 8m {IMAGE} sh -c", "df /dev/shm | awk 'END {print $2}'"),
        step(f"create --name t-2 -v /data -v /tmp:/host:ro {IMAGE} true"),
        step(f"run --rm --volumes-from t-2:ro {IMAGE} sh -c", "touch /data/x; touch /host/x"),
        step("rm -v t-2"),
        step(f"run --rm --sysctl net.ipv4.ip_forward=0 {IMAGE} cat /proc/sys/net/ipv4/ip_forward"),
        step(f"run --rm --uts host -h x {IMAGE} true"),
        step(f"run --rm --user 1000:33 --group-add 5 {IMAGE} id"),
        step(f"run --rm --user absent {IMAGE} true"),
        step(f"run --rm -w /no/such {IMAGE} pwd"),
        step(f"run --rm --blkio-weight 500 {IMAGE} true", differs="docker knows no BFQ"),
        step(f"run --rm --platform windows/amd64 {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm -m 40m --memory-swap 20m {IMAGE} true"),
        step(f"run --rm --memory-swap 20m {IMAGE} true"),
        step(f"run --rm -m 40m --memory-reservation 50m {IMAGE} true"),
        step(f"run --rm --cpus 1 --cpu-quota 5000 {IMAGE} true"),
        step(f"run --name t-2 --log-driver none {IMAGE} echo x"),
        step("logs t-2"),
        step(f"run --rm --log-opt mode=non-blocking --log-opt max-buffer-size=1m {IMAGE} echo out"),
        step(f"run --rm --log-opt mode=blocking {IMAGE} echo out"),
        step(f"run --rm --log-opt mode=sometimes {IMAGE} echo out"),
        step(f"run --rm --log-opt max-buffer-size=1m {IMAGE} echo out"),
        step(f"run --rm --log-driver local --log-opt mode=non-blocking {IMAGE} echo out"),
        step(f"run --name t-3 --log-driver syslog {SYSLOG} {IMAGE} echo kept"),
        step("logs t-3"),
        step(
            f"run --name t-4 --log-driver gelf {GELF} --log-opt cache-disabled=true {IMAGE} echo x"
        ),
        step("logs t-4"),
        step(f"run --rm --log-driver nosuch {IMAGE} true", but=(OWN_WORDS,)),
    ),
)

EXEC = Scene(
    "exec",
    (
        step(SLEEPER),
        step("exec t-1 echo hi"),
        step("exec t-1 sh -c", "echo err >&2; exit 9"),
        step("exec -i t-1 cat", input="typed\n"),
        step("exec -e X=1 -u 33 -w /tmp t-1 sh -c", "echo $X; id -u; pwd"),
        step("exec -d t-1 true"),
        step("exec t-1 env"),
        step(f"run -d -t --init --name t-2 --stop-timeout 0 {IMAGE} sleep 300"),
        step("exec t-2 env"),
        step("exec -e TERM=x t-2 env"),
        step(
            "exec t-1 nonesuch",
            differs="docker 126 as output; here 127 as error, as from run",
            status=False,
        ),
        step("exec -u nobody-such t-1 true", differs="on the error stream, not as output"),
        step("exec absent true"),
        step("top t-1 -o pid,comm", differs="pids of the host"),
        step("stop -t 1 t-1"),
        step("exec t-1 true"),
        step("top t-1"),
    ),
)

FILES = Scene(
    "files",
    (
        step(f"run -d --init --name t-1 {IMAGE} sh -c", "echo a >/new; rm /bin/ls; sleep 300"),
        step("exec t-1 sh -c", "while [ ! -e /new ]; do sleep 0.1; done; sleep 0.2"),
        step("diff t-1", unordered=True, but=(DOCKER_INIT,)),
        step("cp t-1:/new {here}/new"),
        step("cp {here}/file t-1:/tmp/file"),
        step("exec t-1 cat /tmp/file"),
        step("cp t-1:/absent {here}/absent", but=(OWN_WORDS,)),
        step("cp {here}/absent t-1:/tmp", but=((r"lstat .*", "lstat ...", "the client's path"),)),
        step("cp {here}/file t-1:/absent/file", but=(OWN_WORDS,)),
        step("cp {here}/file absent:/tmp"),
        step("commit -m note -a me -c", 'CMD ["true"]', "t-1", "tr/new:1"),
        step("run --rm tr/new:1 cat /new /tmp/file"),
        step("inspect -f {{.Config.Cmd}}|{{.Author}}|{{.Comment}} tr/new:1"),
        step("export -o {here}/root.tar t-1"),
        step("import -c", "ENV A=b", "{here}/root.tar", "tr/root:1"),
        step("inspect -f {{.Config.Env}} tr/root:1"),
        step("run --rm tr/root:1 cat /new"),
    ),
    {"file": "content\n"},
)

IMAGES = Scene(
    "images",
    (
        step("images --format {{.Repository}}:{{.Tag}} busybox"),
        step("tag busybox tr/other:1"),
        step("images tr/other", columns=True),
        step("images -q tr/other"),
        step("image ls --digests tr/other", columns=True),
        step("history --format {{.CreatedBy}} tr/other:1"),
        step("save -o {here}/i.tar tr/other:1"),
        step("rmi tr/other:1"),
        step("load -i {here}/i.tar"),
        step("load -q -i {here}/i.tar"),
        step("load -i {here}/none.tar"),
        step("rmi tr/other:1"),
        step("rmi tr/other:1"),
        step("tag absent tr/x:1"),
        step("tag busybox TR/x:1"),
        step(
            "inspect --type image -f", "{{.Os}}/{{.Architecture}}/{{len .RootFS.Layers}}", "busybox"
        ),
        step("save absent -o {here}/x.tar"),
        step("tag busybox sha256:1"),
        step("tag busybox tr/x:1"),
        step("tag busybox tr/x:2"),
        step("save -o {here}/all.tar tr/x"),
        step("rmi tr/x:1 tr/x:2"),
        step("load -i {here}/all.tar"),
        step("rmi tr/x:2"),
        step("import --platform linux/s390x {here}/empty tr/new:1"),
        step("inspect -f {{.Architecture}}|{{.Size}}|{{len .RootFS.Layers}} tr/new:1"),
        step("import --platform windows/amd64 {here}/empty tr/bad:1", but=(ONLY,)),
        step(f"create --platform linux/s390x {IMAGE} true", differs="no registry is in reach"),
        step("image prune -f", differs="other tests' images may be there"),
    ),
    {"empty": ""},
)

NETWORKS = Scene(
    "networks",
    (
        step("network create --subnet 10.231.7.0/24 --label a=b tr-net"),
        step("network create --subnet 10.231.7.0/24 tr-two", but=(OWN_WORDS,)),
        step("network create tr-net"),
        step("network create --subnet nonsense tr-bad", but=(OWN_WORDS,)),
        step("network create -d nosuch tr-bad"),
        step("network ls --filter name=tr-net", columns=True),
        step("network ls --format {{.Name}}:{{.Driver}}:{{.Scope}} --filter label=a=b"),
        step("network inspect -f {{.Name}}{{.Labels}}{{.Internal}}{{.Attachable}} tr-net"),
        step(SLEEPER),
        step("network connect --alias zz --ip 10.231.7.9 tr-net t-1"),
        step("network connect tr-net t-1"),
        step("inspect -f", '{{(index .NetworkSettings.Networks "tr-net").Aliases}}', "t-1"),
        step("run --rm --network tr-net busybox ping -c 1 -q zz", differs="times of the packets"),
        step("network rm tr-net", but=(OWN_WORDS,)),
        step("network disconnect tr-net t-1"),
        step("network disconnect tr-net t-1", but=(OWN_WORDS,)),
        step("network inspect absent"),
        step("network rm tr-net"),
        step("network rm tr-net"),
        step("network rm bridge"),
        step("network create", "tr a/b:c"),
        step("network inspect -f {{.Name}}", "tr a/b:c"),
        step("network ls --filter name=tr --format {{.Name}}"),
        step("network rm", "tr a/b:c"),
        step("network create", " "),
        step("network create --ipam-opt a=b tr-net"),
        step("network inspect -f", "{{json .IPAM.Options}}", "tr-net"),
        step("network inspect -f", "{{json .IPAM}}", "host", "none"),
        step("volume create -- -a"),
        step("volume create a"),
    ),
)

SETTINGS = (
    "--subnet 10.231.7.0/24 --gateway 10.231.7.9 --ip-range 10.231.7.64/26 --label a=b"
    " -o com.docker.network.driver.mtu=1400"
)
OWN_SETTINGS = ("--subnet 10.231.8.0/24", "--label x=y", "--ipv6", "-o a=b", "--ipam-driver nosuch")
NO_SETTINGS = ("--internal", "--attachable", "--ingress", "--scope local", "--config-from tr-conf")

CONFIG_NETWORKS = Scene(
    "networks of settings",
    (
        step(f"network create --config-only {SETTINGS} tr-conf"),
        step("network create --config-only tr-conf"),
        step("network create --config-only host"),
        step("network ls --filter driver=null", columns=True),
        step("network ls --filter name=tr- --filter type=custom --format {{.Name}}:{{.Driver}}"),
        step("network inspect tr-conf", but=(OWNER,)),
        step("network create --config-from tr-conf tr-net"),
        step("network inspect tr-net", but=(OWNER,)),
        step(f"run --rm --network tr-net {IMAGE} cat /sys/class/net/eth0/mtu"),
        step(f"run --rm --network tr-net {IMAGE} sh -c", "ip route | grep default"),
        *(step(f"network create --config-from tr-conf {line} tr-bad") for line in OWN_SETTINGS),
        *(step(f"network create --config-only {line} tr-bad") for line in NO_SETTINGS),
        step("network create --config-from absent tr-bad"),
        step("network create --config-from tr-net tr-bad"),
        step("network create --config-from bridge tr-bad"),
        step("network create -d nosuch --config-from tr-conf tr-bad"),
        step("network create --config-from tr-conf tr-bad"),  # the subnet is in use
        step("network create --config-only --subnet nonsense tr-bad", but=(OWN_WORDS,)),
        step("network create --config-only -d nosuch tr-bad"),
        step("network inspect tr-bad", but=(OWNER,)),
        step("network create --config-from tr-bad --internal --attachable tr-two"),
        step("network inspect -f {{.Internal}}{{.Attachable}}{{.ConfigFrom}}{{.Options}} tr-two"),
        step("network rm tr-two tr-bad"),
        step("network create --config-only -o com.docker.network.driver.mtu=x tr-bad"),
        step("network create --config-from tr-bad tr-two", but=(OWN_WORDS,)),
        step("network rm tr-bad"),
        step(SLEEPER),
        step("network connect tr-conf t-1"),
        step("network disconnect tr-conf t-1"),
        step(f"run --network tr-conf {IMAGE} true", but=(OWN_WORDS,)),
        step("network rm tr-conf"),
        step("network rm tr-net"),
        step("network rm tr-conf"),
        step("network create --config-only --subnet 10.231.7.0/24 tr-conf"),
        step("network create -d macvlan --config-from tr-conf tr-net", but=(OWN_WORDS,)),
        step("network inspect -f {{.Driver}}{{.Internal}}{{.ConfigFrom}} tr-net"),
        step("network rm tr-conf"),
        step("network rm tr-net"),
        step("network create -d ipvlan --config-from tr-conf tr-net", but=(OWN_WORDS,)),
        step("network inspect -f {{.Driver}}{{.Internal}}{{.ConfigFrom}} tr-net"),
        step("network prune -f"),
        step("network ls --filter name=tr-", columns=True),
        step("network rm tr-conf"),
    ),
)

NET = "192.168.231.0/24"
IPAM = (
    f"--subnet {NET} --ip-range 192.168.231.64/26 --gateway 192.168.231.254"
    " --aux-address a=192.168.231.65 --aux-address b=192.168.231.66"
)
BAD_IPAM = (
    "--gateway 192.168.231.1",
    "--ip-range 192.168.231.0/26",
    "--aux-address a=192.168.231.1",
    f"--subnet {NET} --subnet {NET}",
    f"--subnet {NET} --subnet 192.168.231.0/25",
    f"--subnet {NET} --subnet 192.168.232.0/24",
    f"--subnet {NET} --gateway 192.168.232.1",
    f"--subnet {NET} --gateway 192.168.231.1 --gateway 192.168.231.2",
    f"--subnet {NET} --gateway nonsense",
    f"--subnet {NET} --gateway 192.168.231.0",
    f"--subnet {NET} --gateway 192.168.231.255",
    f"--subnet {NET} --ip-range 192.168.232.0/26",
    f"--subnet {NET} --ip-range 192.168.231.0/23",
    f"--subnet {NET} --ip-range 192.168.231.5/26",
    f"--subnet {NET} --ip-range nonsense",
    f"--subnet {NET} --aux-address a=192.168.232.1",
    f"--subnet {NET} --aux-address a",
    f"--subnet {NET} --aux-address a=nonsense",
    f"--subnet {NET} --aux-address a=192.168.231.1",
    f"--subnet {NET} --gateway fd00::1",
    "--subnet 192.168.231.7/24",
    "--subnet 192.168.231.0",
    "--subnet 192.168.231.0/33",
    "--subnet nonsense",
    "--ipv6 --subnet fd00:231::/64 --subnet fd00:232::/64",
    "--ipv6 --subnet fd00:231::5/64",
)
ADDRESSES = (
    *("--ip 192.168.231.65", "--ip 192.168.231.254", "--ip 192.168.231.255"),
    *("--ip 192.168.231.0", "--ip 192.168.232.7", "--ip nonsense", "--ip fd00::5"),
    *("--ip6 192.168.231.70", "--ip6 fd00::5"),
    "--link-local-ip nonsense",
)

BAD_NETWORKS = (
    *("--ipam-driver nosuch", "--ipam-driver null", "-d overlay", "--scope swarm", "--ingress"),
    *("-d host", "-d null", "-d nosuch", "--attachable=maybe", "--label =b"),
    "-o com.docker.network.bridge.enable_icc=maybe",
    "-o com.docker.network.bridge.enable_ip_masquerade=",
    "-o com.docker.network.bridge.host_binding_ipv4=nonsense",
    "-o com.docker.network.driver.mtu=x",
    "-o com.docker.network.driver.mtu=-1",
    "-d macvlan -o parent=lo",
    "-d macvlan -o macvlan_mode=nosuch",
    "-d ipvlan -o ipvlan_mode=nosuch",
    "-d ipvlan -o ipvlan_flag=nosuch",
)
BAD_PRUNES = ("nosuch=1", "until=nonsense", "until=1h --filter until=2h")
NETWORK_FILTERS = (
    *("name=^tr-two$", "name=r-t", "name=[", "driver=nosuch", "scope=nosuch", "type=nosuch"),
    *("dangling=maybe", "label=a", "label=a=c", "id=nosuch"),
)

NETWORK_OPTIONS = Scene(
    "options and filters of networks",
    (
        *(step(f"network create {line} tr-bad", but=(HINT, MTU_HINT)) for line in BAD_NETWORKS),
        step("network create --label a=b tr-net"),
        step("network create tr-two"),
        *(
            step(f"network ls --format {{{{.Name}}}} --filter {line}", unordered=True)
            for line in NETWORK_FILTERS
        ),
        *(step(f"network prune -f --filter {line}") for line in BAD_PRUNES),
        step("network prune -f --filter until=1h"),
        step("network prune -f --filter label=a=c"),
        step("network prune -f --filter label=a=b"),
        step(f"create --name t-1 --network tr-two {IMAGE} true"),
        step(f"run --rm --network container: {IMAGE} true"),
        step("network rm tr-two absent"),
        step("network rm -f absent"),
        step("network rm -f host"),
    ),
)

NETWORK_ADDRESSES = Scene(
    "addresses of networks",
    (
        *(step(f"network create {line} tr-bad") for line in BAD_IPAM),
        step(f"network create {IPAM} tr-net"),
        step("network inspect -f", "{{json .IPAM}}", "tr-net"),
        step(f"run --rm --network tr-net {IMAGE} hostname -i"),
        step(f"run --rm --network tr-net --ip 192.168.231.7 {IMAGE} hostname -i"),
        *(step(f"run --rm --network tr-net {line} {IMAGE} true") for line in ADDRESSES),
        step("network create tr-two"),
        step(f"run --rm --network tr-two --ip 192.168.231.7 {IMAGE} true"),
        step(f"run --rm --network name=tr-net,ip=nonsense {IMAGE} true"),
        step(SLEEPER),
        *(step(f"network connect {line} tr-net t-1") for line in ADDRESSES),
        step("network connect --link-local-ip 192.168.231.9 tr-net t-1"),
        step("network connect --ip 192.168.231.7 tr-two t-1"),
        step("network connect --ip6 nonsense --ip 192.168.231.7 tr-two t-1"),
        step("rm -f t-1"),  # dockerd connects it to them when it starts again
        step(SLEEPER),
        step("stop -t 0 t-1"),
        step("network connect --ip 192.168.231.77 tr-net t-1"),
        step("network connect --ip 192.168.232.78 tr-net t-1"),
        step("start t-1"),
        step("inspect -f", '{{(index .NetworkSettings.Networks "tr-net").IPAddress}}', "t-1"),
    ),
)

NO_LINKS = ("rm --link t-1", "rm --link absent", "rm --link absent/al", "rm --link t-2/absent")

LINKS = Scene(
    "links",
    (
        step(SLEEPER),
        step(
            f"run -d --init --name t-2 --link t-1:al --link t-1 --stop-timeout 1 {IMAGE} sleep 99"
        ),
        step("exec t-2 grep -w t-1 /etc/hosts", unordered=True),
        step("inspect -f {{range.HostConfig.Links}}{{println.}}{{end}} t-2", unordered=True),
        step("stop t-1"),
        step(f"run -d --init --name t-3 --stop-timeout 1 {IMAGE} sleep 99"),
        step("start t-1"),
        step("exec t-2 grep -w t-1 /etc/hosts", unordered=True),
        step("exec t-2 ping -c 1 -W 2 al", differs="times of the packets"),
        *(step(line) for line in NO_LINKS),
        step("rm --link t-3/al"),
        step("rm --link t-2/al"),
        step("rm --link t-2/al"),
        step("exec t-2 grep -w t-1 /etc/hosts"),
        step("exec t-2 grep -c -w al /etc/hosts"),
        step("inspect -f {{.HostConfig.Links}} t-2"),
        step("rm -f -v --link /t-2/t-1"),
        step("inspect -f", "{{json .HostConfig.Links}}", "t-2"),
        step("ps -a --filter name=t- --format {{.Names}}:{{.State}}"),
        step("stop t-1"),
        step("restart t-2"),
        step("exec t-2 grep -c -w t-1 /etc/hosts"),
        step("network create tr-net"),
        step(f"run -d --init --name t-4 --network tr-net --link t-2:al {IMAGE} sleep 99"),
        step("rm --link t-4/al"),
        step("rm -f t-4"),
    ),
)

VOLUMES = Scene(
    "volumes",
    (
        step("volume create --label a=b tr-v"),
        step("volume create tr-v"),
        step("volume create -- -bad-", but=(OWN_WORDS,)),
        step("volume ls --filter name=tr-v"),
        step("volume ls -q --filter label=a=b"),
        step("volume inspect -f {{.Name}}{{.Labels}}{{.Driver}}{{.Scope}} tr-v"),
        step(f"run --rm -v tr-v:/data {IMAGE} sh -c", "echo kept > /data/x"),
        step(f"run --name t-1 -v tr-v:/data:ro {IMAGE} sh -c", "cat /data/x; touch /data/y"),
        step("volume rm tr-v", but=(OWN_WORDS,)),
        step("rm t-1"),
        step("volume rm tr-v"),
        step("volume rm tr-v"),
        step("volume inspect absent"),
        step(f"run --rm -v /absent-dir-of-tr:/x:nosuch {IMAGE} true", but=(OWN_WORDS,)),
        step(
            f"run --rm --mount type=bind,source=/absent/dir,target=/x {IMAGE} true",
            but=(OWN_WORDS,),
        ),
        step(f"run --rm --mount type=nosuch,target=/x {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm -v /etc/passwd {IMAGE} true", but=(OWN_WORDS,)),
    ),
)

UPDATES = Scene(
    "updates",
    (
        step(SLEEPER),
        step("update -m 80m --memory-swap -1 --cpus 0.4 --restart on-failure:3 t-1"),
        step(
            "inspect -f {{.HostConfig.Memory}}|{{.HostConfig.MemorySwap}}|{{.HostConfig.NanoCpus}}"
            "|{{.HostConfig.RestartPolicy}} t-1"
        ),
        step("update -m 1k t-1", but=(OWN_WORDS,)),
        step("update --cpus 9999 t-1", but=(OWN_WORDS,)),
        step("restart -t 1 t-1"),
        step("stop -t 1 t-1"),
        step("stop t-1"),
        step("port t-1"),
        step("stats --no-stream --format {{.Name}} t-1"),
        step("container prune -f", differs="others' containers may be there"),
        step("restart absent"),
        step("stats --no-stream absent"),
    ),
)

CONTAINERS = Scene(
    "containers",
    (
        step(f"create --name t-1 -w /app/sub/ {IMAGE} true"),
        step("inspect -f {{.Config.WorkingDir}} t-1"),
        step("cp {here}/file t-1:/app/sub/"),
        step("start -a t-1"),
        step("cp t-1:/app/sub/file {here}/copy"),
        step("cp t-1:/etc/hostname -", differs="times and modes in the archive"),
        step("cp {here}/file t-1:/etc/hostname", but=(OWN_WORDS,)),
        step("rm t-1"),
        step(f"run --rm -v tr-v:/etc:nocopy {IMAGE} sh -c", "wc -l /etc/hostname; ls /etc"),
        step(f"run --rm --read-only {IMAGE} sh -c", "for i in hosts hostname; do >/etc/$i; done"),
        step(f"run --name t-1 {IMAGE} sh -c", "chown 33:34 /etc; chmod 750 /etc"),
        step("diff t-1"),
        step("commit t-1 tr/new:1"),
        step("run --rm -v /a/b/c tr/new:1 stat -c", "%n %u:%g %a", "/etc", "/a", "/a/b/c"),
        step(
            f"run --rm -h a.b.c -e HOME= -e HOSTNAME=x {IMAGE} sh -c", "env; tail -n 1 /etc/hosts"
        ),
        step("rm t-1"),
        step(f"run -d --init --name t-1 -u 33 --stop-timeout 0 --expose 5432 {IMAGE} sleep 99"),
        step("top t-1 -o uid,pid,user,comm", but=((r"\d+ {7,}", "PID ", "host"), INIT_NAME)),
        step(f"create --name t-2 --volumes-from t-1 -v /data --link t-1:al {IMAGE} true"),
        step("ps --no-trunc --format {{.Names}}|{{.Ports}}"),
        step("create --name t-3 --volumes-from t-2 tr/new:1 true"),
        *(
            step(f"ps -a --filter {text} --format {{{{.Names}}}}", but=(NO_NUMBER,))
            for text in (
                *("ancestor=busybox", "ancestor=tr/new:1", "network=bri", "since=t-1", "since="),
                *("expose=5000-6000", "expose=5432/udp", "expose=x", "publish=1-", "before=t-3"),
            )
        ),
        step("ps --filter since=t-1 --format {{.Names}}"),
        step("rm -v t-2"),
        step("volume ls -q --filter dangling=true"),
        step("rm -v t-3"),
        step("volume ls -q"),
        step(f"create --name t-2 --mac-address 02:42:ac:11:00:05 {IMAGE} true"),
        step("inspect -f {{.Config.MacAddress}}|{{json .NetworkSettings.Networks}} t-2"),
        *(
            step(f"run --rm --network container:t-1 {flags} {IMAGE} true")
            for flags in (
                *("--dns 1.1.1.1", "--add-host a:1.2.3.4", "--expose 80", "-p 80:80", "-P"),
                *("-h x", "--ip 1.2.3.4", "--mac-address 02:42:ac:11:00:05"),
            )
        ),
        *(
            step(f"create -v {spec} {IMAGE} true", but=(HINT,))
            for spec in (
                *("tr-v:/x:copy", "tr-v:/x:ro,rw", "tr-v:/x:z,Z", "tr-v:/x:nosuch", "tr-v:/"),
                *("/tmp:/x:nocopy", "tr-v:x", "tr-v:/x:slave"),
            )
        ),
    ),
    {"file": "content\n"},
)

PORTS = Scene(
    "ports",
    (
        step(
            "run -d --init --name t-1 -p 127.0.0.1:18391:80 -p 127.0.0.1:18392:53/udp busybox"
            " sleep 99"
        ),
        step("port t-1", unordered=True),
        step("port t-1 80"),
        step("port t-1 81"),
        step("ps --filter name=t-1 --format {{.Ports}}"),
        step(f"run -d --name t-2 -p 127.0.0.1:18391:80 {IMAGE} sleep 99", but=(OWN_WORDS,)),
        step("ps -a --filter name=t-2 --format {{.Status}}"),
        step(f"run --rm -p nonsense {IMAGE} true"),
        step(f"run --rm -p 99999:1 {IMAGE} true"),
    ),
)

BAD_INPUT = Scene(
    "bad input",
    (
        step("inspect absent"),
        step("container inspect absent"),
        step("image inspect absent"),
        step("logs absent"),
        step("attach absent"),
        step("start absent"),
        step("stop absent"),
        step("rm absent"),
        step("rmi absent"),
        step("diff absent"),
        step("commit absent"),
        step("export absent"),
        step("port absent"),
        step("wait absent"),
        step("rename absent other"),
        step("update -m 64m absent"),
        step("top absent"),
        step("kill absent"),
        step("pause absent"),
        step("cp absent:/x -"),
        step(f"run --name :: --rm {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm -m 1k {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --cpus 9999 {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --cap-add NOSUCH {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --security-opt nosuch=1 {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --network absent {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --runtime absent {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --log-driver absent {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --device /dev/absent {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm -u absent {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --volumes-from absent {IMAGE} true"),
        step(f"run --rm --link absent:x {IMAGE} true", but=(OWN_WORDS,)),
        step(f"run --rm --sysctl kernel.shmmax {IMAGE} true", but=(OWN_WORDS,)),
        step("ps --filter nosuch=1"),
        step("images --filter nosuch=1"),
        step("volume ls --filter nosuch=1"),
        step("network ls --filter nosuch=1"),
        step("events --until 0s --filter nosuch=1", differs="both pass an unknown filter over"),
    ),
)

EVENTS = Scene(
    "events",
    (
        step(f"run --rm --name t-3 {IMAGE} true"),
        step(f"run -d --init --name t-3 {IMAGE} sleep 99"),
        step("kill -s WINCH t-3"),
        step("pause t-3"),
        step("unpause t-3"),
        step("rename t-3 t-4"),
        step("exec t-4 true"),
        step("stop -t 1 t-4"),
        step("rm t-4"),
        step(f"run --rm {IMAGE} sleep 1.1"),  # the client names whole seconds
        step(
            "events --since {begin} --until 0s --filter type=container --format {{.Action}}"
            " --filter container=t-3",
            unordered=True,  # two threads report stop and die
        ),
        step(
            "events --since {begin} --until 0s --filter container=t-4 --format {{.Action}}",
            unordered=True,
        ),
        step("volume create tr-v"),
        step(f"run -d --init --name t-5 -v tr-v:/v -e X=1 {IMAGE} sleep 99"),
        step("inspect -f {{.Config.Env}} t-5"),
        step("top t-5", differs="pids of the host"),
        step("update -m 80m --memory-swap -1 t-5"),
        step("export -o {here}/t.tar t-5"),
        step("restart -t 1 t-5"),
        step("kill t-5"),
        step("rm t-5"),
        step("volume rm tr-v"),
        step("events --until 1s --filter container=t-4 --format {{.Action}} --filter event=create"),
        step(f"run --rm {IMAGE} sleep 1.1"),
        step(
            "events --since {begin} --until 0s --filter container=t-5"
            " --format {{.Type}}.{{.Action}}",
            unordered=True,
        ),
        step(
            "events --since {begin} --until 0s --filter volume=tr-v"
            " --format {{.Action}}|{{.Actor.Attributes}}",
        ),
    ),
)

STEPS = (
    (r" ---> .*\n|Step \d+/\d+ : LABEL .*\n", "", "what is made of a step; flags are no steps"),
    (r"Step (\d+)/\d+", r"Step \1", "the same"),
)
ABSENT = ((r"(COPY failed: |'absent' ).*", "absent", "own words"),)

BUILD = Scene(
    "build",
    (
        step("build --force-rm -t tr/built:1 --build-arg A=2 --label l=m {here}", but=STEPS),
        step("run --rm tr/built:1"),
        step("inspect -f {{.Config.Env}}{{.Config.Labels}}{{.Config.Cmd}} tr/built:1"),
        step("history --format {{.CreatedBy}} tr/built:1", differs="in BuildKit's form"),
        step("build -q {here}"),
        step("build -t tr/bad:1 -f {here}/Bad {here}", but=(OWN_WORDS,)),
        step("build -t tr/bad:1 -f {here}/Fails {here}", but=STEPS),
        step("build -t tr/bad:1 -f {here}/Absent {here}", but=(*STEPS, *ABSENT)),
        step("network create tr-net"),
        step("run -d --init --name t-1 --network tr-net --stop-timeout 0 busybox sleep 99"),
        step("build --no-cache --network tr-net -t tr/bad:1 -f {here}/Names {here}", but=STEPS),
        step("build -q -t tr/bad:1 -f {here}/Scratch {here}"),
        step("inspect -f {{.Config.Env}} tr/bad:1"),
        step("builder prune -f", differs="sizes"),
    ),
    {
        "Dockerfile": "FROM busybox\nARG A=1\nENV B=$A\nCOPY file /file\nRUN echo made-$A > /made\n"
        'CMD ["cat", "/file", "/made"]\n',
        "file": "content\n",
        "Bad": "FROM busybox\nRUNN true\n",
        "Fails": "FROM busybox\nRUN echo before; exit 3\n",
        "Absent": "FROM busybox\nCOPY absent /x\n",
        "Names": "FROM busybox\nRUN ping -c 1 -W 5 t-1 >/dev/null && echo reached\n",
        "Scratch": "FROM scratch\nLABEL a=b\n",
    },
)

SCENES = (
    LIFE,
    RUN,
    FLAGS,
    EXEC,
    FILES,
    IMAGES,
    NETWORKS,
    CONFIG_NETWORKS,
    NETWORK_ADDRESSES,
    NETWORK_OPTIONS,
    LINKS,
    VOLUMES,
    UPDATES,
    CONTAINERS,
    PORTS,
    BAD_INPUT,
    EVENTS,
    BUILD,
)
