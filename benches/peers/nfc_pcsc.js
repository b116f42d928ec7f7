// nfc-pcsc reading a card: every command of the list (the first argument after the reader's name,
// hexadecimal, one per word), each time a card is laid on. Says a line when the last answer is there.
'use strict';

const { NFC } = require('nfc-pcsc');

const [name, list] = process.argv.slice(2);
const commands = list.split(' ').map((text) => Buffer.from(text, 'hex'));

new NFC().on('reader', (reader) => {
	if (reader.name !== name) return;
	// The commands ask for the number themselves.
	reader.autoProcessing = false;
	reader.on('card', async () => {
		try {
			for (const command of commands) await reader.transmit(command, 300);
			console.log('read');
		} catch (error) {
			console.log(`failed: ${error.message}`);
		}
	});
	reader.on('error', (error) => console.log(`failed: ${error.message}`));
	console.log('ready');
}).on('error', (error) => console.log(`failed: ${error.message}`));
