// Asks the API. Every failure is an ApiError; status 0 means that no answer came.

const TIMEOUT_MS = 5000;
const KEY = "streamforge.key";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // storage is forbidden: a key lasts as long as the page
}

export function useKey(text) {
  key = text;
  try {
    sessionStorage.setItem(KEY, text);
  } catch {
    // as above
  }
}

export const headers = () => (key ? { "X-API-Key": key } : {});

// The whole answer: data, count, next_cursor. With a body it is a POST, or as `method` says.
export async function ask(path, body, method = "POST") {
  const post = body && { method, body: JSON.stringify(body) };
  const type = body && { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(`/api/v1${path}`, {
      ...post,
      headers: { ...headers(), ...type },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new ApiError(0, "the API does not answer");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok || !answer?.success) {
    throw new ApiError(response.status, answer?.error ?? `the API answered with status ${response.status}`);
  }
  return answer;
}
