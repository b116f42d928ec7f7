//! Loads `firmware-protocols/` and checks the form of its files. What does not live here: what the data means to a device.
