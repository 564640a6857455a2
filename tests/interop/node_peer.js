// A server and a client of HTTP/2 without TLS, on Node's own module. The servers write a line for each request:
// what was asked, and the field x-marker.
//
//   node node_peer.js serve-http2 ADDRESS:PORT   echoes bodies, with a trailer, until it is killed
//   node node_peer.js serve-http ADDRESS :PORT   the same in HTTP/1.1
//   node node_peer.js call ADDRESS:PORT          asks what those answer; a line for each thing that was right
"use strict";

const assert = require("node:assert");
const http = require("node:http");
const http2 = require("node:http2");

const [mode, target] = process.argv.slice(2);
const [address, port] = target.split(":");

function serve(server) {
  // Longer than the mesh keeps an idle connection: a POST that meets the end of one gets a 502, as it should.
  server.keepAliveTimeout = 60000;
  server.listen(Number(port), address);
}

function note(method, path, marker) {
  console.log(`asked ${method} ${path} ${marker || ""}`);
}

function echo2(stream, headers) {
  note(headers[":method"], headers[":path"], headers["x-marker"]);
  stream.on("error", () => {});
  if (headers[":method"] !== "POST") {
    stream.respond({ ":status": 200, "x-host": headers[":authority"] || headers.host });
    stream.end(`hello ${headers[":path"]}\n`);
    return;
  }
  let size = 0;
  stream.respond({ ":status": 200 }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-size": String(size) }));
  stream.on("data", (data) => { size += data.length; });
  stream.pipe(stream);
}

function echo1(request, response) {
  note(request.method, request.url, request.headers["x-marker"]);
  response.on("error", () => {});
  response.setHeader("x-host", request.headers.host);
  if (request.method !== "POST") {
    response.end(`hello ${request.url}\n`);
    return;
  }
  let size = 0;
  response.setHeader("trailer", "x-size");
  request.on("data", (data) => { size += data.length; });
  request.on("end", () => response.addTrailers({ "x-size": String(size) }));
  request.pipe(response);
}

// ask sends one request and resolves with all of its answer.
function ask(session, headers, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers, { endStream: body === undefined });
    const answer = { trailers: {} };
    const pieces = [];
    stream.on("response", (head) => { answer.headers = head; });
    stream.on("trailers", (trailers) => { answer.trailers = trailers; });
    stream.on("data", (data) => pieces.push(data));
    stream.on("error", reject);
    stream.on("end", () => resolve({ ...answer, body: Buffer.concat(pieces) }));
    if (body !== undefined) stream.end(body);
  });
}

function post(session, body, headers = {}) {
  return ask(session, { ":method": "POST", ":path": "/", te: "trailers", ...headers }, body);
}

const trials = {
  async get(session) {
    const { headers, body } = await ask(session, { ":path": "/a%2Fb?c=%20" });
    assert.strictEqual(headers[":status"], 200);
    assert.strictEqual(headers["x-host"], target);
    assert.strictEqual(String(body), "hello /a%2Fb?c=%20\n");
  },
  async head(session) {
    const { headers, body } = await ask(session, { ":method": "HEAD", ":path": "/" });
    assert.strictEqual(headers[":status"], 200);
    assert.strictEqual(body.length, 0);
  },
  async echo(session) {
    assert.strictEqual(String((await post(session, "abc")).body), "abc");
  },
  async "8 MiB"(session) {
    const message = Buffer.alloc(8 << 20);
    for (let at = 0; at < message.length; at += 4) message.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at);
    assert((await post(session, message)).body.equals(message));
  },
  async trailers(session) {
    assert.strictEqual((await post(session, "abc")).trailers["x-size"], "3");
  },
  async "large and binary fields"(session) {
    const { headers } = await ask(session, { ":path": "/", "x-large": "x".repeat(16000), "x-text": "\u00e9\u00ff" });
    assert.strictEqual(headers[":status"], 200);
  },
  async "a thousand at once"(session) {
    const numbers = Array.from({ length: 1000 }, (_, number) => number);
    const answers = await Promise.all(numbers.map((number) => post(session, `request ${number}`)));
    answers.forEach(({ body }, number) => assert.strictEqual(String(body), `request ${number}`));
  },
  async cancellation(session) {
    const stream = session.request({ ":method": "POST", ":path": "/" });
    stream.on("error", () => {});
    stream.write("abc");
    await new Promise((resolve) => stream.on("data", resolve));
    const closed = new Promise((resolve) => stream.on("close", resolve));
    stream.close(http2.constants.NGHTTP2_CANCEL);
    await closed;
    await trials.echo(session);
  },
  async ping(session) {
    await new Promise((resolve, reject) => session.ping((error) => (error ? reject(error) : resolve())));
  },
};

async function call() {
  const session = http2.connect(`http://${target}`);
  session.on("error", (error) => console.log(`WRONG session: ${error}`));
  for (const [name, trial] of Object.entries(trials)) {
    try {
      await trial(session);
      console.log(`ok ${name}`);
    } catch (error) {
      process.exitCode = 1;
      console.log(`WRONG ${name}: ${error.stack}`);
    }
  }
  await new Promise((resolve) => session.close(resolve));
}

if (mode === "serve-http2") serve(http2.createServer().on("stream", echo2));
else if (mode === "serve-http") serve(http.createServer(echo1));
else call();
