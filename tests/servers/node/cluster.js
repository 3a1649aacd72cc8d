// Two workers of node's cluster module behind one socket: that of LISTEN_FDS, or a port given as the argument.
//
// On SIGTERM the primary asks its workers to finish, and ends when the last one has.

const cluster = require("node:cluster");
const http = require("node:http");

const WORK_MS = 10;
const WORKERS = 2;
const FIRST_SOCKET = 3;
const generation = process.env.ZDR_GENERATION ?? "";

function lead() {
  for (let worker = 0; worker < WORKERS; worker++) cluster.fork();
  process.on("SIGTERM", () => {
    for (const worker of Object.values(cluster.workers)) worker.send("finish");
  });
}

function serve() {
  let ending = false;
  const server = http.createServer((request, response) => {
    const answer = () => {
      response.setHeader("X-Generation", generation);
      if (ending) response.setHeader("Connection", "close");
      response.end(`generation ${generation}\n`);
    };
    if (request.url === "/health") answer();
    else setTimeout(answer, WORK_MS);
  });
  // Answers tell their clients to go, because `disconnect` waits until the last has gone.
  process.on("message", () => {
    ending = true;
    cluster.worker.disconnect();
  });
  const port = process.argv[2];
  server.listen(port ? { port: Number(port), host: "127.0.0.1" } : { fd: FIRST_SOCKET });
}

if (cluster.isPrimary) lead();
else serve();
