/**
 * ONNX Runtime's own builds for Linux and macOS report usage to Microsoft unless this variable is set before
 * the first session. Who wants that can set it to 0.
 */
export function keepQuiet(environment: NodeJS.ProcessEnv = process.env): void {
  environment.ORT_DISABLE_TELEMETRY ??= '1';
}
