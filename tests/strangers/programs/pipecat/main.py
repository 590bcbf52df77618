"""Pipecat's own FastAPI transport with the serializer of galcymedia: an echo."""

import os

import uvicorn
from fastapi import FastAPI, WebSocket
from galcymedia.adapters.pipecat import AsteriskFrameSerializer
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

app = FastAPI()


class Echo(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


@app.websocket("/ws")
async def answer(websocket: WebSocket):
    await websocket.accept()
    params = FastAPIWebsocketParams(
        serializer=AsteriskFrameSerializer(), audio_in_enabled=True, audio_out_enabled=True
    )
    transport = FastAPIWebsocketTransport(websocket=websocket, params=params)
    pipeline = Pipeline([transport.input(), Echo(), transport.output()])
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000))

    @transport.event_handler("on_client_disconnected")
    async def disconnected(transport, websocket):
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
