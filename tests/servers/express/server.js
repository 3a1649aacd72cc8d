// A server on Express: on a descriptor or on a port. Every request takes 10 ms. On SIGTERM it closes, as Express's documentation says.

const express = require("express");

const WORK_MS = 10;
const generation = process.env.ZDR_GENERATION ?? "";
const [, , kind, number] = process.argv;

const app = express();
app.use((request, response, next) => {
  response.set("X-Generation", generation);
  next();
});
app.get("/health", (request, response) => response.send(`generation ${generation}\n`));
app.get("/", (request, response) => setTimeout(() => response.send(`generation ${generation}\n`), WORK_MS));

const where = kind === "fd" ? { fd: Number(number) } : { port: Number(number), host: "127.0.0.1" };
const server = app.listen(where);
process.on("SIGTERM", () => server.close());
