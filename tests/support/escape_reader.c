/*
 * A reader with lights for pcscd: everything is the virtual reader's, but what comes past the
 * card (SCardControl, IOCTL_SMARTCARD_VENDOR_IFD_EXCHANGE of the ccid driver) is written down,
 * a line of hex each, and answered as an ACR122U does. Compiled by support/pcscd.rs.
 *
 * BAYGATE_VPCD     the virtual reader's own driver
 * BAYGATE_ESCAPES  where to write
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <ifdhandler.h>
#include <reader.h>
#include <stdio.h>
#include <stdlib.h>

#define VENDOR_IFD_EXCHANGE SCARD_CTL_CODE(1)

static void *of_vpcd(const char *name)
{
	static void *driver;
	if (!driver)
		driver = dlopen(getenv("BAYGATE_VPCD"), RTLD_LAZY | RTLD_LOCAL);
	return driver ? dlsym(driver, name) : NULL;
}

#define FORWARD(name, params, args) \
	RESPONSECODE name params \
	{ \
		RESPONSECODE (*vpcd) params = of_vpcd(#name); \
		return vpcd ? vpcd args : IFD_COMMUNICATION_ERROR; \
	}

FORWARD(IFDHCreateChannelByName, (DWORD lun, LPSTR name), (lun, name))
FORWARD(IFDHCreateChannel, (DWORD lun, DWORD channel), (lun, channel))
FORWARD(IFDHCloseChannel, (DWORD lun), (lun))
FORWARD(IFDHGetCapabilities, (DWORD lun, DWORD tag, PDWORD length, PUCHAR value), (lun, tag, length, value))
FORWARD(IFDHSetCapabilities, (DWORD lun, DWORD tag, DWORD length, PUCHAR value), (lun, tag, length, value))
FORWARD(IFDHSetProtocolParameters, (DWORD lun, DWORD protocol, UCHAR flags, UCHAR a, UCHAR b, UCHAR c),
	(lun, protocol, flags, a, b, c))
FORWARD(IFDHPowerICC, (DWORD lun, DWORD action, PUCHAR atr, PDWORD length), (lun, action, atr, length))
FORWARD(IFDHTransmitToICC,
	(DWORD lun, SCARD_IO_HEADER pci, PUCHAR sent, DWORD length, PUCHAR got, PDWORD room, PSCARD_IO_HEADER got_pci),
	(lun, pci, sent, length, got, room, got_pci))
FORWARD(IFDHICCPresence, (DWORD lun), (lun))

RESPONSECODE IFDHControl(DWORD lun, DWORD code, PUCHAR sent, DWORD length, PUCHAR got, DWORD room, LPDWORD returned)
{
	if (code != VENDOR_IFD_EXCHANGE || room < 2) {
		*returned = 0;
		return IFD_NOT_SUPPORTED;
	}
	FILE *escapes = fopen(getenv("BAYGATE_ESCAPES"), "a");
	if (!escapes)
		return IFD_COMMUNICATION_ERROR;
	for (DWORD at = 0; at < length; at++)
		fprintf(escapes, "%02X", sent[at]);
	fputc('\n', escapes);
	fclose(escapes);
	got[0] = 0x90;
	got[1] = 0x00;
	*returned = 2;
	return IFD_SUCCESS;
}
