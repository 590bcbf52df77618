// The sample of asterisk-audiosocket's README: an echo. Its port is in the environment.
import { AudioSocketServer } from 'asterisk-audiosocket';

const server = new AudioSocketServer({ port: Number(process.env.PORT) });

server.on('connection', (call) => {
  call.on('id',    (uuid) => console.log('call', uuid));
  call.on('audio', (pcm)  => call.play(pcm));
  call.on('hangup', ()    => console.log('bye'));
});

await server.listen();
