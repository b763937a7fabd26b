// Headers field by field, whatever their bytes are: for `dump`, which shows damaged ones too. Nothing else reads disk this way.

/// The fields of a header in the order of its layout table.
struct FieldTable {
    enum Kind {
        case byte
        case short
        case word
        case long
        /// Four bytes shown in hexadecimal.
        case hex
        /// Eight bytes shown in hexadecimal.
        case longHex
        case uuid
        /// Eight bytes of text.
        case text

        var byteCount: Int {
            switch self {
            case .byte: return 1
            case .short: return 2
            case .word, .hex: return 4
            case .long, .longHex, .text: return 8
            case .uuid: return 16
            }
        }
    }

    var fields: [(offset: Int, kind: Kind, name: String)]

    /// Each field that lies wholly inside `bytes`, as its name and its value in words.
    func values(in bytes: UnsafeRawBufferPointer) -> [(name: String, value: String)] {
        fields.filter { $0.offset + $0.kind.byteCount <= bytes.count }.map {
            ($0.name, Self.value($0.kind, bytes, $0.offset))
        }
    }

    private static func value(_ kind: Kind, _ bytes: UnsafeRawBufferPointer, _ offset: Int) -> String {
        switch kind {
        case .byte: return "\(bytes.load(offset, as: UInt8.self))"
        case .short: return "\(bytes.load(offset, as: UInt16.self))"
        case .word: return "\(bytes.load(offset, as: UInt32.self))"
        case .long: return "\(bytes.load(offset, as: UInt64.self))"
        case .hex: return "0x" + String(bytes.load(offset, as: UInt32.self), radix: 16)
        case .longHex: return "0x" + String(bytes.load(offset, as: UInt64.self), radix: 16)
        case .uuid: return "\(StoreUUID(decoding: bytes, at: offset))"
        case .text: return bytes.part(offset, 8).quoted
        }
    }
}

extension Superblock {
    static let fieldTable = FieldTable(fields: [
        (0, .text, "magic"), (8, .hex, "checksum"), (12, .short, "format version"), (14, .byte, "checksum type"),
        (16, .longHex, "compatible features"), (24, .longHex, "read-only-compatible features"),
        (32, .longHex, "incompatible features"), (40, .uuid, "format uuid"), (56, .uuid, "store uuid"),
        (72, .long, "generation"), (80, .long, "mount epoch"), (88, .longHex, "flags (1: cleanly unmounted)"),
        (96, .long, "capacity in bytes"), (104, .word, "segment size in bytes"),
        (108, .word, "index page size in bytes"),
        (112, .word, "alignment of offsets and lengths"), (116, .word, "alignment of memory"),
        (120, .uuid, "key of the name hash"), (136, .uuid, "boot id of the last mount"),
        (152, .longHex, "staging of the last mount"), (160, .long, "next inode number"),
        (168, .long, "highest record sequence"), (176, .long, "checkpoint"), (184, .long, "log included through batch"),
        (192, .hex, "checksum of that batch's header"), (196, .word, "log goes on in segment"),
        (200, .word, "incarnation of that segment"), (204, .word, "offset in that segment"),
        (208, .long, "formatted at, seconds since 1970"), (216, .long, "number of inodes"),
        (224, .long, "mount epoch of the checkpoint"), (232, .long, "bytes reserved and not written"),
        (240, .long, "bytes that operations brought"), (248, .long, "bytes that the cleaner wrote"),
        (256, .long, "index: checkpoint"), (264, .long, "index: birth of the root page"),
        (272, .word, "index: address of the root page"), (276, .byte, "index: level of the root page"),
        (280, .long, "index: entries"), (288, .long, "index: pages of the file"), (296, .long, "index: pages in use"),
        (304, .word, "index: first page of the bitmap"), (320, .long, "bytes that files share"),
        (328, .long, "checkpoint that counted them"), (336, .uuid, "uuid of the blocks, if another"),
        (352, .long, "staging is void through mount epoch"), (360, .long, "and was passed over through"),
        (368, .long, "where the next record had sequence"), (376, .long, "killed mounts passed over"),
        (384, .long, "staging being taken in is of mount epoch"),
    ])
}

extension SegmentHeader {
    static let fieldTable = FieldTable(fields: [
        (0, .text, "magic"), (8, .hex, "checksum"), (12, .short, "version"), (14, .byte, "state (1 free, 2 in use)"),
        (15, .byte, "role (0 hot, 1 cold)"), (16, .uuid, "store uuid"), (32, .word, "segment number"),
        (36, .word, "incarnation"), (40, .long, "mount epoch"), (48, .long, "first batch"),
        (56, .word, "segment size in bytes"), (60, .word, "end (0: none declared)"),
        (64, .uuid, "key of the name hash"), (80, .long, "capacity in bytes"),
    ])
}

extension BatchHeader {
    static let fieldTable = FieldTable(fields: [
        (0, .text, "magic"), (8, .hex, "checksum"), (12, .short, "version"),
        (14, .byte, "kind (0 records, 1 reserved range)"),
        (15, .byte, "flags (1: last of its segment, 2: mended)"), (16, .uuid, "store uuid"), (32, .word, "segment"),
        (36, .word, "incarnation"), (40, .long, "mount epoch"), (48, .long, "batch sequence"),
        (56, .hex, "checksum of the batch before"), (60, .hex, "checksum of the record area"),
        (64, .word, "record area in bytes"), (68, .word, "records"), (72, .word, "payload blocks"),
        (80, .long, "first record"), (88, .long, "last record"), (96, .long, "next inode number"),
        (104, .long, "durable through batch"), (112, .hex, "checksum in the chain, if mended"),
    ])

    /// The incarnation that a would-be batch header claims; nil where the bytes do not even begin like one.
    static func claimedIncarnation(_ bytes: UnsafeRawBufferPointer) -> UInt32? {
        guard bytes.count >= byteCount, bytes.load(0, as: UInt64.self) == magic else { return nil }
        return bytes.load(36)
    }
}

extension UnsafeRawBufferPointer {
    /// The bytes as text in quotation marks; what is not printable ASCII or well-formed UTF-8 as \xNN.
    var quoted: String {
        let isPlain = allSatisfy { $0 >= 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
        if isPlain, let text = String(validating: self, as: UTF8.self),
            text.unicodeScalars.allSatisfy({ !$0.isInvisible })
        {
            return "\"\(text)\""
        }
        var text = "\""
        for byte in self {
            if byte >= 0x20, byte < 0x7F, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\") {
                text.unicodeScalars.append(UnicodeScalar(byte))
            } else {
                text += (byte < 16 ? "\\x0" : "\\x") + String(byte, radix: 16)
            }
        }
        return text + "\""
    }
}

extension UnicodeScalar {
    /// Control and formatting characters, which could change how a terminal shows the rest of a line.
    fileprivate var isInvisible: Bool {
        switch properties.generalCategory {
        case .control, .format, .surrogate, .lineSeparator, .paragraphSeparator, .unassigned, .privateUse: return true
        default: return false
        }
    }
}
