"""Tables of kernel facts for `preflight`: device names and the Kconfig symbols of their drivers.

"A|B" is either symbol. `preflight` accepts anything that is not listed here, so a missing entry
hides a fault but causes no false alarm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.system.pattern import pattern

# Console device names (struct console, uart_driver.dev_name: drivers/tty), and the drivers that
# register them.
CONSOLES: Mapping[str, str] = {
    "tty": "VT_CONSOLE",
    "hvc": "HVC_DRIVER|VIRTIO_CONSOLE",
    "lp": "LP_CONSOLE",
    "ttyAM": "SERIAL_AMBA_PL010_CONSOLE",
    "ttyAMA": "SERIAL_AMBA_PL011_CONSOLE",
    "ttyAML": "SERIAL_MESON_CONSOLE",
    "ttyFB": "SERIAL_21285_CONSOLE",
    "ttyGF": "GOLDFISH_TTY",
    "ttyLP": "SERIAL_FSL_LPUART_CONSOLE",
    "ttyLXU": "SERIAL_LITEUART_CONSOLE",
    "ttyMPS": "SERIAL_MPS2_UART_CONSOLE",
    "ttyMSM": "SERIAL_MSM_CONSOLE|SERIAL_QCOM_GENI_CONSOLE",
    "ttyPS": "SERIAL_XILINX_PS_UART_CONSOLE",
    "ttyPZ": "SERIAL_PMACZILOG_CONSOLE",
    "ttyS": (
        "SERIAL_8250_CONSOLE|SERIAL_PXA_CONSOLE|SERIAL_MCF_CONSOLE|SERIAL_SUNZILOG_CONSOLE|SERIAL_SUNSU_CONSOLE"
        "|SERIAL_SUNSAB_CONSOLE|SERIAL_IP22_ZILOG_CONSOLE|SERIAL_DZ_CONSOLE|SERIAL_ZS_CONSOLE"
        "|SERIAL_BCM63XX_CONSOLE|SERIAL_PMACZILOG_TTYS|SERIAL_TXX9_CONSOLE"
        "|SERIAL_GRLIB_GAISLER_APBUART_CONSOLE|SERIAL_SPRD_CONSOLE"
        "|SERIAL_CONEXANT_DIGICOLOR_CONSOLE|AMIGA_BUILTIN_SERIAL|SERIAL_CONSOLE"
    ),
    "ttySA": "SERIAL_SA1100_CONSOLE",
    "ttySAC": "SERIAL_SAMSUNG_CONSOLE",
    "ttySC": "SERIAL_SH_SCI_CONSOLE|SERIAL_SCCNXP_CONSOLE",
    "ttySIF": "SERIAL_SIFIVE_CONSOLE",
    "ttySTM": "SERIAL_STM32_CONSOLE",
    "ttyUL": "SERIAL_UARTLITE_CONSOLE",
    "ttyUSB": "USB_SERIAL_CONSOLE",
    "ttymxc": "SERIAL_IMX_CONSOLE",
    "ttysclp": "SCLP_VT220_CONSOLE",
}

# Root device names, and all symbols that each needs; "*scsi": the driver of some host adapter, see
# `is_adapter`.
DISKS: Sequence[tuple[str, tuple[str, ...]]] = (
    (r"sd[a-z]+\d*", ("SCSI", "BLK_DEV_SD", "*scsi")),
    (r"sr\d+", ("SCSI", "BLK_DEV_SR", "*scsi")),
    (
        r"vd[a-z]+\d*",
        ("VIRTIO_BLK", "VIRTIO_PCI|VIRTIO_MMIO|VIRTIO_CCW|VIRTIO_UML|VIRTIO_VDPA|S390_GUEST"),
    ),
    (r"mmcblk\d+(p\d+)?", ("MMC", "MMC_BLOCK", "*mmc")),
    (r"mtdblock\d+", ("MTD", "MTD_BLOCK|MTD_BLOCK_RO")),
    (r"ram\d+", ("BLK_DEV_RAM",)),
    (r"nvme\d+n\d+(p\d+)?", ("BLK_DEV_NVME",)),
    (r"xvd[a-z]+\d*", ("XEN_BLKDEV_FRONTEND",)),
    (r"fd\d+", ("BLK_DEV_FD",)),
    (r"nfs", ("ROOT_NFS",)),
)
IDE_DISK, IDE = pattern(r"hd[a-z]\d*"), "IDE_GD|BLK_DEV_IDEDISK"  # removed in Linux 5.14

ADAPTERS = {
    "scsi": "CONFIG_ATA_PIIX=y (a PC's IDE), CONFIG_SATA_AHCI=y, CONFIG_SCSI_VIRTIO=y, ...",
    "mmc": "CONFIG_MMC_ARMMMCI=y, CONFIG_MMC_SDHCI_PCI=y, ...",
}
_ADAPTER = {
    "scsi": pattern(
        r"(ATA|PATA|SATA|MEGARAID|FUSION|UFS|BLK_DEV_3W)_|AIC\d"
        r"|.*(SCSI|USB_STORAGE|USB_UAS|53C|_ESP|SBP2|HYPERV_STORAGE|ZFCP)"
    ),
    "mmc": pattern(r"MMC_"),
}
# Symbols that match _ADAPTER and are no adapter's (drivers/{ata,scsi,mmc/host}/Kconfig).
_NO_ADAPTER = pattern(
    r"ATA_(SFF|BMDMA|VERBOSE_ERROR|FORCE|ACPI|NONSTANDARD|OVER_ETH)|SATA_(HOST|PMP|ZPODD|MOBILE_LPM_POLICY)"
    r"|PATA_TIMINGS|(BLK_)?SCSI(_(MOD|COMMON|DMA|PROC_FS|NETLINK|CONSTANTS|LOGGING|SCAN_ASYNC|LOWLEVEL|LOWLEVEL_PCMCIA"
    r"|ENCLOSURE|REQUEST|\w+_ATTRS|DH\w*))?|MMC_(BLOCK|BLOCK_MINORS|TEST|DEBUG|CRYPTO"
    r"|RICOH_MMC|CQHCI|HSQ|DW|TMIO_CORE|SDHCI|SDHCI_PLTFM|SDHCI_IO_ACCESSORS|SDHCI_BIG_ENDIAN\w*)"
)

FILE_SYSTEMS: Mapping[str, str] = {
    "ext2": "EXT2_FS|EXT4_USE_FOR_EXT2",
    "ext3": "EXT4_FS|EXT3_FS",
    "ext4": "EXT4_FS",
    "squashfs": "SQUASHFS",
    "cramfs": "CRAMFS",
    "romfs": "ROMFS_FS",
    "minix": "MINIX_FS",
    "jffs2": "JFFS2_FS",
    "vfat": "VFAT_FS",
}
PROGRAMS = "BINFMT_ELF|BINFMT_ELF_FDPIC|BINFMT_FLAT|COMPAT_BINFMT_ELF"

# Magic numbers of a compressed initramfs (lib/decompress.c), and its compressor as in CONFIG_RD_*.
MAGIC: Sequence[tuple[bytes, str]] = (
    (b"\x1f\x8b", "GZIP"),
    (b"\xfd7zXZ", "XZ"),
    (b"BZh", "BZIP2"),
    (b"\x5d\0\0", "LZMA"),
    (b"\x02\x21\x4c\x18", "LZ4"),
    (b"\x89LZO", "LZO"),
    (b"\x28\xb5\x2f\xfd", "ZSTD"),
)

# COMMAND_LINE_SIZE (arch/*/include/**/setup.h): a longer command line is silently truncated. Where
# it is a Kconfig symbol (s390), the configuration counts.
COMMAND_LINE_SIZE: Mapping[str, int] = {
    "i386": 2048,
    "x86_64": 2048,
    "x86": 2048,
    "arm": 1024,
    "arm64": 2048,
    "riscv": 1024,
    "powerpc": 2048,
    "mips": 4096,
    "m68k": 256,
    "xtensa": 256,
    "alpha": 256,
    "sh": 512,
    "openrisc": 512,
}


def is_adapter(symbol: str, family: str) -> bool:
    """Tell whether a symbol may be the driver of a host adapter; in doubt it is.

    Args:
        symbol: The symbol, without CONFIG_.
        family: A key of ADAPTERS.
    """
    return bool(_ADAPTER[family].match(symbol)) and not _NO_ADAPTER.fullmatch(symbol)
