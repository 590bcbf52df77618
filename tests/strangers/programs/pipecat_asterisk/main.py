"""The sample of pipecat-asterisk's README, with an echo in the place of its comment."""

import os

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.workers.runner import WorkerRunner
from pipecat_asterisk import AsteriskWebsocketTransport

app = FastAPI()


class Echo(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


@app.websocket("/ws")
async def websocket_endpoint(websocket: WebSocket):
    await websocket.accept()
    ws_transport = AsteriskWebsocketTransport(websocket=websocket)
    pipeline = Pipeline([ws_transport.input(), Echo(), ws_transport.output()])
    worker = PipelineWorker(
        pipeline,
        params=PipelineParams(audio_out_sample_rate=48000, audio_in_sample_rate=48000),
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
