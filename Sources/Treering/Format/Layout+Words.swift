// Structures on disk as words, field by field. For `dump`, which shows damaged structures too; nothing else decodes
// this way.

extension DiskLayout {
    /// The name and the value in words of each field that lies wholly inside `bytes`. The bytes may be damaged.
    static func words(for bytes: UnsafeRawBufferPointer) -> [(name: String, value: String)] {
        words(parts, bytes)
    }

    private static func words(
        _ parts: [LayoutPart], _ bytes: UnsafeRawBufferPointer
    ) -> [(name: String, value: String)] {
        parts.flatMap { part -> [(name: String, value: String)] in
            guard part.style != .hidden, part.offset < bytes.count else { return [] }
            let place = bytes.part(part.offset, min(part.byteCount, bytes.count - part.offset))
            if !part.inner.isEmpty { return words(part.inner, place) }
            return place.count < part.byteCount ? [] : [("\(part.name)", part.words(for: place))]
        }
    }
}

extension LayoutPart {
    fileprivate func words(for bytes: UnsafeRawBufferPointer) -> String {
        if style == .text { return bytes.quoted }
        if byteCount == StoreUUID.storedByteCount { return "\(bytes[Field<StoreUUID>(0, name)])" }
        let number = bytes.reversed().reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
        return style == .hexadecimal ? "0x" + String(number, radix: 16) : "\(number)"
    }
}

extension UnsafeRawBufferPointer {
    /// The bytes in quotation marks: as they are if all of them are visible UTF-8, else with each byte that is not
    /// printable ASCII as \xNN.
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
    /// Whether it is a control or formatting character, which could change how a terminal shows the rest of the line.
    fileprivate var isInvisible: Bool {
        switch properties.generalCategory {
        case .control, .format, .surrogate, .lineSeparator, .paragraphSeparator, .unassigned, .privateUse: return true
        default: return false
        }
    }
}
