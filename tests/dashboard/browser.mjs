// A real Chromium, driven line by line: a JSON order for one of its pages on standard input, a JSON answer on standard output.
// It decides nothing about the pages; what should be true of them stands in tests/dashboard.rs. It ends when its input does.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(`${process.argv[2]}/`);
const { chromium } = require('playwright-core');

// Its folder for what it keeps is new, empty and removed at the end.
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

const open = async url => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  // Everything that the browser complains of, and every address that it was asked for.
  const complaints = [];
  const addresses = new Set();
  page.on('console', message => { if (['error', 'warning', 'assert'].includes(message.type())) complaints.push(message.text()); });
  page.on('pageerror', error => complaints.push(String(error)));
  page.on('request', request => { const { protocol, origin } = new URL(request.url()); addresses.add(protocol === 'data:' ? protocol : origin); });
  await page.addInitScript(() => addEventListener('securitypolicyviolation', event => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
  // By the inspector, which the page's own policy does not bind.
  const evaluate = async expression => {
    const { result, exceptionDetails } = await devtools.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  await page.goto(url, { waitUntil: 'load' });
  return { context, page, complaints, addresses, evaluate };
};

const orders = {
  go: async ({ page }, { url }) => { await page.goto(url, { waitUntil: 'load' }); },
  evaluate: async ({ evaluate }, { script }) => evaluate(script),
  wait: async ({ evaluate }, { script }) => {
    const end = Date.now() + 15000;
    for (;;) {
      const value = await evaluate(script);
      if (value) return value;
      if (Date.now() > end) throw new Error(`waited in vain; the page says: ${await evaluate('document.title + "\\n" + document.body.innerText')}`);
      await evaluate('new Promise(done => setTimeout(done, 20))');
    }
  },
  look: async ({ page }, { width, scheme }) => { await page.setViewportSize({ width, height: 900 }); await page.emulateMedia({ colorScheme: scheme }); },
  press: async ({ page }, { key }) => { await page.keyboard.press(key); },
  picture: async ({ page }, { path }) => { await page.screenshot({ path, fullPage: true }); },
  accessibility: async ({ evaluate }) => {
    await evaluate(require('axe-core').source);
    const { violations } = await evaluate('axe.run()');
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(node => `${node.html} ${node.failureSummary}`).join('\n')}`);
  },
  complaints: async ({ complaints }) => complaints.splice(0),
  addresses: async ({ addresses }) => [...addresses],
  close: async ({ context }) => { await context.close(); },
};

const pages = new Map();
const obey = async ({ page, order, ...rest }) => {
  let answer;
  try {
    if (order === 'open') pages.set(page, await open(rest.url));
    else answer = await orders[order](pages.get(page), rest);
    answer = { page, value: answer ?? null };
  } catch (error) { answer = { page, error: error.message }; }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
};
// The orders for one page wait for each other, those for others do not.
const turns = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  turns.set(order.page, Promise.resolve(turns.get(order.page)).then(() => obey(order)));
}
await Promise.all(turns.values());
await browser.close();
