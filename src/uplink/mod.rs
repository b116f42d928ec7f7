//! MQTT: session, drain of the log, command intake.
