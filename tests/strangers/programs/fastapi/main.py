"""FastAPI's plain accept(): an echo that names no subprotocol and reads no control message."""

import os

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/ws")
async def echo(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message.get("bytes"):
                await websocket.send_bytes(message["bytes"])
            elif message["type"] == "websocket.disconnect":
                break
    except WebSocketDisconnect:
        pass


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
