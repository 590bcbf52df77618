// The echo of ws's README: what is binary goes back. It takes the first subprotocol that is offered.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.env.PORT) });

server.on('connection', (socket) => {
  socket.on('error', console.error);
  socket.on('message', (data, isBinary) => { if (isBinary) socket.send(data); });
});
