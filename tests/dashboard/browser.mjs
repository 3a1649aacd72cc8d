// A real Chromium with one page, driven line by line: a JSON order on standard input, a JSON answer on standard output.
// It decides nothing about the page; what should be true of it stands in tests/dashboard.rs. It ends when its input does.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [modules, profile] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require('playwright-core');

const browser = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = browser.pages()[0] ?? await browser.newPage();
const devtools = await browser.newCDPSession(page);

// Everything that the browser complains of, and every address that it was asked for.
const complaints = [];
const addresses = new Set();
page.on('console', message => { if (['error', 'warning', 'assert'].includes(message.type())) complaints.push(message.text()); });
page.on('pageerror', error => complaints.push(String(error)));
page.on('request', request => addresses.add(new URL(request.url()).protocol === 'data:' ? 'data:' : new URL(request.url()).origin));
await page.addInitScript(() => addEventListener('securitypolicyviolation', event => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));

// By the inspector, which the page's own policy does not bind.
const evaluate = async expression => {
  const { result, exceptionDetails } = await devtools.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
};

const orders = {
  open: async ({ url }) => { await page.goto(url, { waitUntil: 'load' }); },
  evaluate: async ({ script }) => evaluate(script),
  wait: async ({ script }) => {
    const end = Date.now() + 15000;
    for (;;) {
      const value = await evaluate(script);
      if (value) return value;
      if (Date.now() > end) throw new Error(`waited in vain; the page says: ${await evaluate('document.title + "\\n" + document.body.innerText')}`);
      await evaluate('new Promise(done => setTimeout(done, 20))');
    }
  },
  look: async ({ width, scheme }) => { await page.setViewportSize({ width, height: 900 }); await page.emulateMedia({ colorScheme: scheme }); },
  press: async ({ key }) => { await page.keyboard.press(key); },
  picture: async ({ path }) => { await page.screenshot({ path, fullPage: true }); },
  accessibility: async () => {
    await evaluate(require('axe-core').source);
    const { violations } = await evaluate('axe.run()');
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(node => `${node.html} ${node.failureSummary}`).join('\n')}`);
  },
  complaints: async () => complaints.splice(0),
  addresses: async () => [...addresses],
};

for await (const line of createInterface({ input: process.stdin })) {
  const { order, ...rest } = JSON.parse(line);
  let answer;
  try { answer = { value: (await orders[order](rest)) ?? null }; } catch (error) { answer = { error: error.message }; }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
