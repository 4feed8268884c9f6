/** `GET /` */
export function chatPage(): Response {
  return new Response('<!doctype html>', { headers: { 'content-type': 'text/html; charset=utf-8' } });
}
