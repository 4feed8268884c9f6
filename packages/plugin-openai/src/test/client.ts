import OpenAI from 'openai';
import { createOpenAIHandler, type HandlerOptions } from '../handler.js';

/** OpenAI's own client, with the handler in place of the network. */
export function clientOf(options: HandlerOptions | ReturnType<typeof createOpenAIHandler>): OpenAI {
  const handler = typeof options === 'function' ? options : createOpenAIHandler(options);
  return new OpenAI({
    apiKey: 'none',
    baseURL: 'http://localhost/v1',
    maxRetries: 0,
    fetch: (url, init) => handler(new Request(url, init)),
  });
}

export function post(path: string, body: unknown, init: RequestInit = {}): Request {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return new Request(`http://localhost${path}`, { method: 'POST', body: text, ...init });
}

/** The data of each event of a stream; comments are left out. */
export async function eventData(response: Response): Promise<string[]> {
  const text = await response.text();
  return text
    .split('\n\n')
    .filter((event) => event !== '' && !event.startsWith(':'))
    .map((event) => /^(?:event: [^\n]+\n)?data: ([^\n]+)$/.exec(event)?.[1] ?? `not an event: ${event}`);
}
