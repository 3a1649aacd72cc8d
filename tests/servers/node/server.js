// A server on node's http module, on the socket of LISTEN_FDS. Every request takes 10 ms.
//
// On SIGTERM it accepts nothing more, finishes its requests, and ends; with the argument `abrupt` it dies of it.

const http = require("node:http");

const WORK_MS = 10;
const FIRST_SOCKET = 3;
const generation = process.env.ZDR_GENERATION ?? "";
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

if (!process.argv.includes("abrupt")) {
  process.on("SIGTERM", () => {
    ending = true;
    server.close();
  });
}

server.listen({ fd: FIRST_SOCKET });
