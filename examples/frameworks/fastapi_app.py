"""FastAPI: one producer for the application, made and closed by its lifespan.

    KAFKA=localhost:9092 uvicorn fastapi_app:app

Needs fastapi and uvicorn.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request

from kafka_ext import (
    ActionWhileQueueIsFull,
    KafkaException,
    KafkaProducer,
    ProducerRecord,
    QueueFullError,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # In the worker's own process, after all forks.
    app.state.producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA"], linger_ms=5)
    yield
    # Delivers what is on its way; it waits, so not on the event loop.
    await asyncio.to_thread(app.state.producer.close, 30)


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{customer}")
async def create(customer: str, request: Request) -> dict[str, object]:
    producer: KafkaProducer = request.app.state.producer
    record = ProducerRecord("orders", await request.body(), key=customer)
    try:
        # NO_BLOCK, for the event loop must not wait for room in the queue.
        future = producer.send_future(record, action=ActionWhileQueueIsFull.NO_BLOCK)
        metadata = await asyncio.wrap_future(future)
    except QueueFullError:
        raise HTTPException(503, "too many orders at once") from None
    except KafkaException as exc:
        raise HTTPException(502, str(exc)) from None
    # Delivered: the client can be told so.
    return {"partition": metadata.partition, "offset": metadata.offset}
