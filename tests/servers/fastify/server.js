// A server on Fastify that binds its own address. Every request takes 10 ms. On SIGTERM it closes, as Fastify's documentation says;
// with the argument `finishes` it answers what it is asked meanwhile.

const app = require("fastify")({ return503OnClosing: !process.argv.includes("finishes") });

const WORK_MS = 10;
const generation = process.env.ZDR_GENERATION ?? "";

app.addHook("onRequest", async (request, reply) => {
  reply.header("X-Generation", generation);
});
app.get("/health", async () => `generation ${generation}\n`);
app.get("/", async () => {
  await new Promise((resolve) => setTimeout(resolve, WORK_MS));
  return `generation ${generation}\n`;
});

process.on("SIGTERM", () => app.close());
app.listen({ port: Number(process.argv[2]), host: "127.0.0.1" });
