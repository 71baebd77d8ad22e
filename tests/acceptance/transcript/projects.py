"""Compose projects of common shapes: files, and the command lines of a user."""

from __future__ import annotations

from harness.transcript import Scene, Step

Masks = tuple[tuple[str, str, str], ...]

HOST_PORT = (r'"HostPort":"\d+"', '"HostPort":"PORT"', "an ephemeral port")
PORT = (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", "an ephemeral port")
PIDS = (
    r"(?m)^(\w+) +\d+ +\d+ +\d+ +\d\d:\d\d +(\S+) +\d\d:\d\d:\d\d ",
    r"\1 PID PID C STIME \2 TIME ",
    "pids of the host, use of the processor",
)
WIDTH = (r" +\|", " |", "the width depends on which service is found first")
PROBES = (
    r"(?m)^container (?:exec_(?:create|start): (?:/bin/sh -c|true)|exec_die|health_status).*\n",
    "",
    "as many probes as the time allows",
)
PROBE_PROCESS = (
    r"(?m)^.* TIME +(?:/bin/sh -c test|true|\S*runc init).*\n",
    "",
    "a probe may run at the moment",
)
RECREATED = (r"[0-9a-f]{12}_", "ID_", "the id of the container before")

WEB = {
    "compose.yaml": """
services:
  web:
    build: ./web
    ports: ["127.0.0.1::80", "127.0.0.1::8443/udp"]
    networks: [front, back]
    depends_on: [app]
    labels: {tier: web}
    init: true
  app:
    image: busybox
    command: sh -c 'until wget -qO- http://cache:8379/ping; do sleep 0.1; done; exec sleep 600'
    environment: {CACHE_URL: "http://cache:8379", EMPTY: ""}
    networks: [back]
    depends_on: [cache]
    init: true
  cache:
    image: busybox
    command: [sh, -c, "echo PONG > /data/ping; echo ready; exec httpd -f -p 8379 -h /data"]
    volumes: [cache:/data]
    expose: [8379]
    networks: {back: {aliases: [redis]}}
    stop_signal: SIGKILL
networks:
  front: {}
  back: {internal: true}
volumes:
  cache: {labels: {kept: "no"}}
""",
    "web/Dockerfile": """
FROM busybox
LABEL part=web
COPY index.html /www/
EXPOSE 80
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
""",
    "web/index.html": "<h1>shop</h1>\n",
}

DATABASE = {
    "compose.yaml": """
services:
  db:
    image: busybox
    command: sh -c 'echo starting; sleep 1; touch /data/ready; echo accepting; exec sleep 600'
    init: true
    env_file: [db.env]
    volumes: ["data:/data"]
    restart: unless-stopped
    stop_grace_period: 1s
    healthcheck:
      test: ["CMD-SHELL", "test -e /data/ready"]
      interval: 500ms
      timeout: 5s
      retries: 60
      start_period: 10s
  migrate:
    image: busybox
    command: sh -c 'echo migrating $$(cat /data/ready | wc -c); echo t1 > /data/schema'
    volumes: ["data:/data"]
    depends_on: {db: {condition: service_healthy}}
  api:
    image: busybox
    command: sh -c 'cat /data/schema; exec sleep 600'
    init: true
    volumes: ["data:/data:ro"]
    depends_on:
      db: {condition: service_healthy, restart: true}
      migrate: {condition: service_completed_successfully}
  broken:
    image: busybox
    profiles: [broken]
    command: sleep 600
    init: true
    healthcheck: {test: "echo no; exit 3", interval: 300ms, retries: 2}
  dependent:
    image: busybox
    profiles: [broken]
    command: sleep 600
    depends_on: {broken: {condition: service_healthy}}
  failing:
    image: busybox
    profiles: [failing]
    command: sh -c 'echo failed >&2; exit 7'
  after:
    image: busybox
    profiles: [failing]
    command: sleep 600
    depends_on: {failing: {condition: service_completed_successfully}}
volumes: {data: {}}
""",
    "db.env": "POSTGRES_USER=shop\nPOSTGRES_PASSWORD='s e c'\n",
}

SOURCES = {
    "compose.yaml": """
services:
  node:
    image: busybox
    working_dir: /app
    command: sh ./server.sh
    tty: true
    stdin_open: true
    environment: [NODE_ENV=development, "PORT=3000"]
    ports: ["127.0.0.1::3000"]
    volumes:
      - ./src:/app
      - /app/node_modules
      - type: bind
        source: ./package.json
        target: /app/package.json
        read_only: true
      - type: tmpfs
        target: /app/tmp
        tmpfs: {size: 1048576, mode: 0o1777}
    init: true
  test:
    image: busybox
    profiles: [test]
    extends: {service: node}
    command: sh -c 'cat package.json; ls; exit 2'
    ports: !reset []
""",
    "src/server.sh": 'echo "listening on $PORT"; exec httpd -f -p "$PORT" -h /app\n',
    "src/index.html": "dev\n",
    "package.json": '{"name": "app"}\n',
}

PROXY = {
    "compose.yaml": """
services:
  proxy:
    build: ./proxy
    labels: {role: proxy}
    volumes:
      - "${ENGINE_SOCKET}:/var/run/docker.sock:ro"
      - "/usr:/usr:ro"
    ports: ["127.0.0.1::8000"]
    init: true
  one: &backend
    image: busybox
    command: sh -c 'hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp'
    hostname: one
    labels: {proxy.path: /one, proxy.port: "8080"}
    init: true
  two:
    <<: *backend
    hostname: two
    labels: {proxy.path: /two, proxy.port: "8080"}
""",
    "proxy/Dockerfile": """
FROM busybox
RUN rm -rf /lib /lib64 && ln -s usr/lib /lib && ln -s usr/lib64 /lib64 && mkdir -p /usr
COPY proxy.py /
CMD ["/usr/bin/python3", "-u", "/proxy.py"]
""",
    "proxy/proxy.py": '''
"""A reverse proxy whose routes are the labels of running containers, as Traefik's."""
import http.client, http.server, json, socket, threading

class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")

def ask(path):
    connection = Engine("docker")
    connection.request("GET", path)
    return connection.getresponse()

ROUTES = {}

def read():
    found = {}
    filters = '{"label":["proxy.path"],"status":["running"]}'
    for container in json.load(ask("/v1.24/containers/json?filters=" + filters)):
        labels = container["Labels"]
        (network,) = container["NetworkSettings"]["Networks"].values()
        found[labels["proxy.path"]] = (network["IPAddress"], labels["proxy.port"])
    for path in sorted(found.keys() - ROUTES.keys()):
        print("add", path)
    for path in sorted(ROUTES.keys() - found.keys()):
        print("remove", path)
    ROUTES.clear()
    ROUTES.update(found)

def follow():
    filters = '{"type":["container"],"event":["start","die"],"label":["proxy.path"]}'
    events = ask("/v1.24/events?filters=" + filters)
    read()
    for line in events:
        read()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path not in ROUTES:
            return self.send_error(404)
        host, port = ROUTES[self.path]
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request("GET", "/")
        answer = connection.getresponse()
        self.send_response(answer.status)
        self.end_headers()
        self.wfile.write(answer.read())

    def log_message(self, *words):
        pass

threading.Thread(target=follow, daemon=True).start()
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
''',
}

CONFIDENTIAL = {
    "compose.yaml": """
name: tr-confidential
x-common: &common
  image: busybox
  init: true
services:
  front:
    <<: *common
    command: sleep 600
    configs:
      - source: site
        target: /etc/site.conf
        mode: 0440
      - inline
    secrets: [key, {source: token, target: api_token, mode: 0400}]
    networks:
      outer: {ipv4_address: "${SUBNET}.9", aliases: [www], priority: 100}
      inner: {}
    extra_hosts: ["db.local:10.0.0.5", "gw:host-gateway"]
    dns_search: [example.test]
  worker:
    <<: *common
    command: sh -c 'echo "worker $$0"; exec sleep 600' here
    deploy:
      replicas: 2
      resources: {limits: {memory: 32M, cpus: "0.5", pids: 64}, reservations: {memory: 16M}}
    networks: [inner]
  debug:
    <<: *common
    profiles: [debug]
    command: sleep 600
    networks: [inner]
  oneshot:
    <<: *common
    profiles: [tools]
    entrypoint: [echo, tool]
    command: [default]
configs:
  site: {file: ./site.conf}
  inline: {content: "host = ${SITE:-none}\\n"}
secrets:
  key: {file: ./key}
  token: {environment: API_TOKEN}
networks:
  outer:
    driver: bridge
    driver_opts: {com.docker.network.bridge.enable_icc: "true"}
    ipam: {config: [{subnet: "${SUBNET}.0/24", gateway: "${SUBNET}.1"}]}
    labels: {zone: outer}
  inner: {internal: true, attachable: true}
""",
    "site.conf": "port = 80\n",
    "key": "s3cret\n",
}

OPTIONS = {
    "compose.yaml": """
services:
  box:
    image: busybox
    container_name: ${COMPOSE_PROJECT_NAME}-the-box
    hostname: box
    domainname: example.test
    command:
      - sh
      - -c
      - trap 'echo stopping; exit 0' USR1; echo out; while :; do sleep 0.1; done
    init: true
    logging:
      driver: json-file
      options: {max-size: 10k, max-file: "2", tag: "{{.Name}}", labels: role}
    labels: {role: box, com.example.empty: ""}
    annotations: {com.example.a: b}
    healthcheck: {test: [CMD, "true"], interval: 300ms, start_period: 1s, start_interval: 200ms}
    ulimits: {nofile: {soft: 1000, hard: 2000}, core: 0}
    sysctls: {net.core.somaxconn: 1024, net.ipv4.ip_local_port_range: "32768 40000"}
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE, CHOWN]
    security_opt: ["no-new-privileges:true"]
    read_only: true
    tmpfs: ["/run", "/tmp:size=1m,mode=1777"]
    shm_size: 2mb
    mem_limit: 64m
    memswap_limit: 64m
    mem_reservation: 32m
    cpus: 0.5
    cpu_shares: 512
    pids_limit: 50
    oom_score_adj: 100
    stop_signal: SIGUSR1
    stop_grace_period: 5s
    user: "1000:1000"
    group_add: ["2000"]
    restart: on-failure:3
    ipc: private
    uts: ""
    extra_hosts: {peer: 10.1.2.3}
  quiet:
    image: busybox
    command: sh -c 'echo unseen; exec sleep 600'
    init: true
    logging: {driver: none}
  local:
    image: busybox
    command: sh -c 'echo a line; exec sleep 600'
    init: true
    logging: {driver: local, options: {max-size: 1m}}
  alone:
    image: busybox
    command: sleep 600
    init: true
    network_mode: none
  sidecar:
    image: busybox
    command: sleep 600
    init: true
    network_mode: service:box
    pid: service:box
""",
}


def compose(line: str, *more: str, **options: object) -> Step:
    """Return a step of a project; ``line`` is split at spaces, ``more`` are whole words."""
    words = ("compose", "--ansi", "never", "--project-directory", "{here}", *line.split(), *more)
    return Step(words, **options)  # type: ignore[arg-type]


def changes(line: str, *more: str) -> Step:
    """Return a step that reports the work on containers in the order in which it ends."""
    return compose(line, *more, unordered=True)


def logs(line: str, until: str = "", **options: object) -> Step:
    """Return a step that prints output of services, which have no order among themselves."""
    return compose(f"logs --no-color {line}", until=until, unordered=True, but=(WIDTH,), **options)


def top(line: str = "", *more: tuple[str, str, str]) -> Step:
    return compose(f"top {line}", columns=True, but=(PIDS, PROBE_PROCESS, *more))


def events(*filters: str, but: Masks = ()) -> Step:
    """Return the events of the whole scene.

    The docker command truncates times to seconds, so the end is one second ahead.
    """
    words = [word for one in filters for word in ("--filter", one)]
    form = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"
    return Step(
        ("events", "--since", "10m", "--until=-1s", *words, "--format", form),
        unordered=True,
        but=but,
    )


def label(name: str) -> str:
    """Return the filter for the objects of a project."""
    return f"label=com.docker.compose.project=tr-{name}"


def end(name: str) -> tuple[Step, ...]:
    """Return the removal of a project, and the search for its remains."""
    listings = (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"), ("images", "-q"))
    return (
        changes("--profile * down -v --rmi local -t 1"),
        *(Step((*words, "--filter", label(name))) for words in listings),
        compose(f"ls -a --filter name=tr-{name}"),
    )


BUILD = "progress of a build"
MISSING = "status 126, message as output; here 127 as error, as with run"


def inspect(*names: str) -> Step:
    form = "{{.Config.Hostname}} {{.Config.Domainname}} {{json .NetworkSettings.Ports}}"
    return Step(("inspect", "-f", form, *names), but=(HOST_PORT,))


web = Scene(
    "web",
    (
        compose("config"),
        compose("config --services", unordered=True),
        compose("config --hash *", unordered=True),
        compose("build", differs=BUILD),
        changes("up -d"),
        logs("app cache", "PONG"),
        compose("ps", columns=True, but=(PORT,)),
        compose("ps --services", unordered=True),
        compose("ps -a --status running --format", "{{.Name}} {{.Service}} {{.State}}"),
        compose("images", columns=True),
        top(),
        compose("port web 80", but=(PORT,)),
        compose("port --protocol udp web 8443", but=(PORT,)),
        compose("port web 81", but=((r"\d+/(tcp|udp)", "PORT", "an ephemeral port"),)),
        compose("port cache 8379"),
        compose("exec -T app env", unordered=True),
        compose("exec -T app wget -qO- http://web/"),
        compose("exec -T app wget -qO- http://redis:8379/ping"),
        compose("exec -T -u 33 -w /tmp -e A=b web sh -c", "id -u; pwd; echo $A; exit 9"),
        compose("exec -T web nonesuch", differs=MISSING, status=False),
        compose("exec -T absent true"),
        compose("logs --no-log-prefix cache"),
        compose("logs -t --tail 1 cache"),
        inspect("tr-web-web-1", "tr-web-app-1", "tr-web-cache-1"),
        Step(("network", "inspect", "-f", "{{json .IPAM.Options}} {{.Internal}}", "tr-web_back")),
        Step(("volume", "inspect", "-f", "{{json .Labels}} {{json .Options}}", "tr-web_cache")),
        compose("cp web:/www/index.html {here}/copy"),
        changes("pause"),
        compose("ps -a", columns=True, but=(PORT,)),
        changes("unpause"),
        changes("restart -t 1 app"),
        changes("stop -t 1 web"),
        compose("ps -a", columns=True, but=(PORT,)),
        compose("port web 80"),
        compose("exec -T web true"),
        changes("start web"),
        changes("kill cache"),
        compose("ps -a --format", "{{.Name}} {{.State}} {{.ExitCode}} {{.Ports}}",
                but=(PORT,), until="137"),
        compose("ls -a --filter name=tr-web", columns=True),
        changes("rm -f cache"),
        changes("up -d"),
        changes("up -d"),
        compose("run --rm -T --no-deps app echo one-off", unordered=True),
        events(
            label("web"),
            but=((r"(?m)^container exec_die .*\n", "", "also of a program that is missing"),),
        ),
        *end("web"),
        events("type=network", "network=tr-web_back"),
        events("type=volume", "volume=tr-web_cache"),
    ),
    WEB,
)  # fmt: skip

database = Scene(
    "database",
    (
        compose("config", but=((r"(?m)^ +start_interval.*\n", "", "none"),)),
        changes("up -d"),
        logs("", "t1"),
        compose("ps -a", columns=True),
        compose("exec -T db env", unordered=True),
        changes("up -d --wait db"),
        changes("--profile broken up -d dependent"),
        compose("--profile broken ps -a --format", "{{.Name}} {{.Health}} {{.State}}"),
        changes("--profile failing up -d after"),
        compose("--profile failing ps -a --format", "{{.Name}} {{.State}} {{.ExitCode}}"),
        changes("--profile broken rm -fs broken dependent"),
        compose("wait migrate"),
        changes("up -d --force-recreate --no-deps api"),
        changes("restart db"),
        compose("ps", columns=True, until="(healthy)"),
        changes("stop -t 1"),
        compose("ps -a --format", "{{.Name}} {{.State}} {{.Health}} {{.ExitCode}}"),
        changes("start"),
        compose("ps db --format", "{{.Name}} {{.Health}}", until="healthy"),
        top("db"),
        compose("port db 5432"),
        compose("images", columns=True),
        events(label("database"), but=(PROBES, RECREATED)),
        *end("database"),
    ),
    DATABASE,
)  # fmt: skip

sources = Scene(
    "sources",
    (
        compose("config"),
        changes("up -d"),
        logs("", "listening"),
        compose("ps", columns=True, but=(PORT,)),
        compose("exec -T node sh -c", "pwd; ls -a; cat package.json;"
                " stat -c '%a %u' . tmp node_modules"),
        compose("exec -T node sh -c", "echo x >> package.json"),
        compose("exec -T node sh -c", "echo changed > index.html; wget -qO- http://127.0.0.1:3000/"),
        compose("port node 3000", but=(PORT,)),
        top(),
        compose("images", columns=True),
        compose("run --rm -T test", unordered=True),
        compose("run --rm -T -v {here}/src:/x:ro --entrypoint cat test /x/server.sh"),
        changes("restart -t 1"),
        compose("ps -a", columns=True, but=(PORT,)),
        events(label("sources")),
        *end("sources"),
    ),
    SOURCES,
)  # fmt: skip

SOCKET_OWNER = (r"\b(root|\d+) +0 ", "GROUP 0 ", "a socket of the container; docker: the daemon's")
proxy = Scene(
    "proxy",
    (
        compose("build", differs=BUILD),
        changes("up -d"),
        logs("proxy", "add /two"),
        compose("ps", columns=True, but=(PORT,)),
        *(
            compose(f"exec -T one wget -qO- http://proxy:8000/{path}")
            for path in ("one", "two", "three")
        ),
        changes("stop -t 1 two"),
        logs("proxy", "remove /two"),
        compose("exec -T one wget -qO- http://proxy:8000/two"),
        changes("up -d --scale one=2 one"),
        compose("ps -a", columns=True, but=(PORT,)),
        compose("exec -T proxy ls -l /var/run/docker.sock", but=(SOCKET_OWNER,
                (r"\w{3} +\d+ +\d\d:\d\d", "TIME", "time"))),
        top("proxy"),
        compose("port proxy 8000", but=(PORT,)),
        compose("images", columns=True),
        events(label("proxy")),
        *end("proxy"),
    ),
    PROXY,
)  # fmt: skip

RESOLVER = (r"(?m)^#.*\n|^\n", "", "comments on the origin of resolv.conf")
ZERO = (r"(fe|ff)00::0", r"\g<1>00::", "as written by later versions of Docker")
confidential = Scene(
    "confidential",
    (
        compose("config"),
        compose("config --profiles", unordered=True),
        changes("up -d"),
        compose("ps -a", columns=True),
        logs("worker", "worker-2"),
        compose("exec -T front sh -c",
                "cat /etc/site.conf /inline /run/secrets/key /run/secrets/api_token;"
                " stat -c '%a %u %g %n' /etc/site.conf /inline /run/secrets/*"),
        compose("exec -T front cat /etc/hosts", unordered=True, but=(ZERO,)),
        compose("exec -T front cat /etc/resolv.conf", but=(RESOLVER,)),
        compose("exec -T front sh -c", "ip -4 addr show | grep -c inet;"
                " ip route | cut -d ' ' -f 1-3",
                but=((r"(?m)^ADDRESS dev .*\n", "", "the order and length of private subnets"),)),
        compose("exec -T --index 2 worker cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
                " /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        changes("up -d --scale worker=3"),
        compose("ps worker", columns=True),
        changes("--profile debug up -d"),
        compose("ps --services", unordered=True),
        compose("exec -T debug nslookup worker",
                but=((r"(?s).*", "", "the order of addresses"),)),
        changes("scale worker=1"),
        compose("ps -a", columns=True),
        compose("run --rm -T oneshot", unordered=True),
        compose("run --rm -T oneshot other words", unordered=True),
        top("worker"),
        compose("port front 80"),
        compose("images", columns=True),
        Step(("network", "inspect", "-f", "{{json .IPAM}} {{json .Options}} {{json .Labels}}",
              "tr-confidential_outer")),
        events(label("confidential")),
        *end("confidential"),
    ),
    CONFIDENTIAL,
)  # fmt: skip

LIMITS = (
    "id; ulimit -n; ulimit -Hn; ulimit -c; cat /proc/sys/net/core/somaxconn",
    "cat /proc/sys/net/ipv4/ip_local_port_range",
    "grep -E 'Cap(Prm|Eff|Bnd)|NoNew' /proc/self/status",
    """for m in / /run /tmp /dev/shm; do grep " $m " /proc/mounts | cut -d ' ' -f 2-4; done""",
    "hostname -f; touch /x; cat /proc/1/oom_score_adj; tr '\\0' ' ' < /proc/1/cmdline",
    "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes",
    "cat pids/pids.max cpu/cpu.shares",
)
MOUNTS = (
    r"(?m)^(/\S* \w+ r[ow])(?:,(?!size=)[^,\n]+)*(,size=\w+)?.*$",
    r"\1\2",
    "paths of layers, and host ids of the user namespace",
)
options = Scene(
    "options",
    (
        compose("config"),
        changes("up -d"),
        logs("", "a line"),
        compose("ps -a", columns=True, until="(healthy)"),
        compose("exec -T box sh -c", "; ".join(LIMITS), but=(MOUNTS,)),
        compose("exec -T sidecar sh -c", "hostname; ps -o args | head -n 2"),
        compose("exec -T alone ip -o addr"),
        inspect("tr-options-the-box", "tr-options-sidecar-1", "tr-options-alone-1"),
        Step(("inspect", "-f", "{{json .HostConfig.LogConfig}} {{json .HostConfig.Annotations}}",
              "tr-options-the-box")),
        compose("logs quiet"),
        compose("logs --no-log-prefix local"),
        top("", (r"(?m)^.* TIME +sleep 0\.1.*\n", "", "may have ended")),
        compose("port box 80"),
        compose("images", columns=True),
        changes("kill -s USR1 box"),
        compose("ps -a --format", "{{.Name}} {{.State}} {{.ExitCode}}", until="the-box exited"),
        compose("logs --no-log-prefix box", until="stopping"),
        changes("start box"),
        changes("restart local"),
        events(label("options"), but=(PROBES,)),
        *end("options"),
    ),
    OPTIONS,
)  # fmt: skip

PROJECTS = (web, database, sources, proxy, confidential, options)
