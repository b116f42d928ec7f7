//! Local HTTP, event stream, tokens, control socket.
