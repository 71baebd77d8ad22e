// What a user of dockerode writes; prints one JSON document that the test compares.
const Docker = require('dockerode');
const { PassThrough } = require('stream');

const docker = new Docker({ socketPath: process.argv[2] });
const image = process.argv[3];

function gathered() {
  const stream = new PassThrough();
  const parts = [];
  stream.on('data', (part) => parts.push(part));
  return [stream, () => Buffer.concat(parts).toString()];
}

// The promises of `run` and `wait` are about another connection than the output.
function ended(stream) {
  return new Promise((resolve) => stream.on('end', resolve));
}

async function main() {
  const result = {};
  const [out, outText] = gathered();
  const [err, errText] = gathered();
  const command = ['sh', '-c', 'echo out; echo err >&2; exit 3'];
  const outputs = Promise.all([ended(out), ended(err)]);
  const [exit, run] = await docker.run(image, command, [out, err], { Tty: false });
  await outputs;
  result.run = [exit.StatusCode, outText(), errText()];
  await run.remove();

  const container = await docker.createContainer({
    Image: image,
    Cmd: ['sh', '-c', 'while read line; do echo got $line; done'],
    name: 'dockerode',
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
    AttachStdout: true,
    HostConfig: { Memory: 67108864 },
  });
  const attached = await container.attach({ stream: true, stdin: true, stdout: true, hijack: true });
  const [typed, typedText] = gathered();
  container.modem.demuxStream(attached, typed, typed);
  const typedEnd = ended(attached);
  await container.start();

  const execution = await container.exec({
    Cmd: ['sh', '-c', 'echo inside; exit 5'], AttachStdout: true, AttachStderr: true,
  });
  const execStream = await execution.start({ hijack: true });
  const [inside, insideText] = gathered();
  container.modem.demuxStream(execStream, inside, inside);
  await ended(execStream);
  result.exec = [(await execution.inspect()).ExitCode, insideText()];

  result.memory = (await container.inspect()).HostConfig.Memory;
  result.listed = (await docker.listContainers({ filters: { name: ['dockerode'] } })).length;

  attached.write('words\n');
  attached.end();
  result.status = (await container.wait()).StatusCode;
  await typedEnd;
  result.typed = typedText();
  const logs = await container.logs({ stdout: true, stderr: true });
  result.logs = logs.includes('got words');
  await container.remove();

  try {
    await docker.getContainer('dockerode').inspect();
  } catch (error) {
    result.missing = [error.statusCode, error.json.message];
  }

  const network = await docker.createNetwork({ Name: 'dockerode-net' });
  result.network = (await network.inspect()).Name;
  await network.remove();
  const volume = await docker.createVolume({ Name: 'dockerode-volume' });
  result.volume = volume.name;
  await docker.getVolume('dockerode-volume').remove();
  console.log(JSON.stringify(result));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
