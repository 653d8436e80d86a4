// A node server with a limit of eight connections: further ones are closed.
const server = require('net').createServer((socket) => {
  socket.on('error', () => socket.destroy());
  socket.pipe(socket);
});
server.maxConnections = 8;
server.listen(Number(process.argv[2]), '127.0.0.1');
