// A server in node: app.js MODE HOST PORT
const fs = require('fs'), net = require('net'), http = require('http'), child = require('child_process');
const [mode, host, port] = process.argv.slice(2);
function work(url) {
  const end = Date.now() + 30000;
  if (url.startsWith('/compute')) for (let x = 0; Date.now() < end; x++);
  if (url.startsWith('/file')) while (Date.now() < end) fs.readFileSync(process.argv[1]);
  if (url.startsWith('/lock')) child.execSync('flock "$ZOO_LOCK" true');
}
if (mode === 'hang') {
  const kept = [];
  net.createServer({ pauseOnConnect: true }, (c) => kept.push(c)).listen(+port, host);
} else {
  const server = http.createServer((req, res) => { work(req.url); res.end('ok\n'); });
  if (mode === 'limit') server.maxConnections = 2;
  server.listen(+port, host);
}
