import type { ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { App } from '../context.ts';
import { unavailable } from '../errors.ts';
import { perApp } from '../per-app.ts';

/** The answers a process has not finished yet, and connections on which nothing was asked yet: to Node these are not idle. */
const answersOf = perApp(() => ({
  open: new Set<ServerResponse>(),
  silent: new Set<Socket>(),
  whenNone: () => {},
}));

/** What a door calls for a request of its own is part of that request. */
const isCalledInProcess = ({ raw }: FastifyRequest): boolean => !(raw.socket instanceof Socket);

/** Refuses what comes on open connections while the process drains, probes of its readiness too, and closes them. */
export function refuseWhileDraining(app: App, server: FastifyInstance): void {
  const answers = answersOf(app);
  server.server.on('connection', (socket) => {
    answers.silent.add(socket);
    socket.once('close', () => answers.silent.delete(socket));
  });
  server.addHook('onRequest', (request, { raw: response }, done) => {
    answers.silent.delete(request.raw.socket);
    if (app.draining.aborted && !isCalledInProcess(request)) {
      response.shouldKeepAlive = false;
      return done(
        unavailable('SERVICE_SHUTTING_DOWN', 'The server is shutting down. Repeat the request.', 1),
      );
    }
    answers.open.add(response);
    response.once('close', () => {
      answers.open.delete(response);
      if (!app.draining.aborted) return;
      if (!isCalledInProcess(request)) request.raw.socket.end();
      if (answers.open.size === 0) answers.whenNone();
    });
    done();
  });
}

/** Takes no more connections, and ends each that is there with its answer. Resolves when all are answered. */
export function drainRequests(app: App, server: FastifyInstance): Promise<void> {
  const answers = answersOf(app);
  server.server.close();
  for (const socket of answers.silent) socket.destroy();
  for (const response of answers.open) response.shouldKeepAlive = false;
  if (answers.open.size === 0) return Promise.resolve();
  return new Promise((resolve) => {
    answers.whenNone = resolve;
  });
}
