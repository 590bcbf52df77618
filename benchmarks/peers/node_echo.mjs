// The echo of asterisk-audiosocket's own README: what comes is played back, paced.
import { AudioSocketServer } from 'asterisk-audiosocket';

const server = new AudioSocketServer({ port: Number(process.argv[2]) });
server.on('connection', (call) => {
  call.on('audio', (pcm) => call.play(pcm));
  call.on('error', () => {});
});
await server.listen();
