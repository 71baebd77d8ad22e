// Containers, a network, a built image and a compose project by testcontainers; prints one JSON
// document and leaves all of them to Ryuk. Arguments: an image with busybox, a directory.
const http = require("http");
const {
  DockerComposeEnvironment, GenericContainer, Network, Wait,
} = require("testcontainers");

const [image, directory] = process.argv.slice(2);

const get = (host, port) =>
  new Promise((resolve, reject) =>
    http.get({ host, port, path: "/" }, (answer) => {
      let body = "";
      answer.on("data", (data) => (body += data)).on("end", () => resolve(body));
    }).on("error", reject));

async function main() {
  const result = {};
  const network = await new Network().start();
  const web = await new GenericContainer(image)
    .withCommand(["sh", "-c", "echo ready; exec httpd -f -p 80 -h /www"])
    .withCopyContentToContainer([{ content: "hello\n", target: "/www/index.html" }])
    .withEnvironment({ COLOUR: "green" })
    .withExposedPorts(80)
    .withNetwork(network)
    .withNetworkAliases("web")
    .withTmpFs({ "/scratch": "rw,size=1m" })
    .withUlimits({ nofile: { hard: 2048, soft: 1024 } })
    .withResourcesQuota({ memory: 0.0625 })
    .withWaitStrategy(Wait.forAll([Wait.forLogMessage("ready"), Wait.forListeningPorts()]))
    .start();
  result.page = await get(web.getHost(), web.getMappedPort(80));
  const run = await web.exec(["sh", "-c", "echo $COLOUR; ulimit -n; echo err >&2; exit 3"]);
  result.exec = [run.exitCode, run.stdout, run.stderr];
  await web.restart({ timeout: 1 });
  result.restarted = await get(web.getHost(), web.getMappedPort(80));

  const healthy = await new GenericContainer(image)
    .withCommand(["sleep", "600"])
    .withNetwork(network)
    .withHealthCheck({ test: ["CMD-SHELL", "wget -qO- http://web/"], interval: 500, retries: 20 })
    .withWaitStrategy(Wait.forHealthCheck())
    .start();
  result.alias = (await healthy.exec(["wget", "-qO-", "http://web/"])).stdout;
  const stopped = await healthy.commit({ repo: "tc/committed", tag: "1" });
  result.committed = typeof stopped === "string" && stopped.length > 0;

  const built = await GenericContainer.fromDockerfile(directory)
    .withBuildArgs({ WORD: "built" })
    .build();
  const job = await built.withWaitStrategy(Wait.forOneShotStartup()).start();
  const lines = [];
  (await job.logs()).on("data", (line) => lines.push(line.toString()));
  await new Promise((resolve) => setTimeout(resolve, 500));
  result.built = lines.join("");

  const project = await new DockerComposeEnvironment(directory, "compose.yaml")
    .withWaitStrategy("one-1", Wait.forLogMessage("up"))
    .up();
  result.compose = (await project.getContainer("one-1").exec(["cat", "/kept/file"])).stdout;

  await new GenericContainer("tc/absent:1").start().catch((error) => {
    result.absent = error.message.length > 0;
  });
  process.stdout.write(JSON.stringify(result));
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
