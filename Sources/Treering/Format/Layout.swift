// How layouts on disk are declared. Each is a struct whose properties are its parts, in the order of their offsets.
// Encoders, decoders, `dump` and the tables of docs/format.md all use these structs, so each offset and length stands
// in one place only.

/// The layout of one structure on disk. Bytes that no part covers are zero.
protocol DiskLayout {
    init()
    /// The length of the structure in bytes, without its `Tail` if it has one.
    static var byteCount: Int { get }
}

extension DiskLayout {
    /// All parts in order. They are found by reflection, so none can be forgotten.
    static var parts: [LayoutPart] {
        Mirror(reflecting: Self()).children.map { child in
            var part = (child.value as! any LayoutMember).part
            part.label = child.label!
            return part
        }
    }
}

/// A description of one part of a layout, for `dump` and docs/format.md.
struct LayoutPart {
    var label = ""
    var offset: Int
    var byteCount: Int
    var name: StaticString
    var note: StaticString
    var style = FieldStyle.plain
    /// The parts of this part, if it has a layout of its own.
    var inner: [LayoutPart] = []
    /// Whether there may be several, one after another.
    var isRepeated = false
}

private protocol LayoutMember { var part: LayoutPart { get } }

/// How `dump` shows a field.
enum FieldStyle {
    /// A number in decimal, or a uuid.
    case plain
    case hexadecimal
    case text
    /// `dump` leaves it out.
    case hidden
}

/// One value at a fixed place. `name` and `note` are for people.
struct Field<Value: Stored>: LayoutMember {
    let offset: Int
    let name: StaticString
    let note: StaticString
    let style: FieldStyle

    @inline(__always)
    init(_ offset: Int, _ name: StaticString, _ note: StaticString = "", as style: FieldStyle = .plain) {
        self.offset = offset
        self.name = name
        self.note = note
        self.style = style
    }

    /// Where the next part can begin.
    var end: Int { @inline(__always) get { offset + Value.storedByteCount } }

    var part: LayoutPart {
        LayoutPart(
            offset: offset, byteCount: Value.storedByteCount, name: name, note: note, style: style,
            inner: Value.storedParts)
    }
}

/// Bytes at a fixed place that are not one value.
struct Room: LayoutMember {
    let offset: Int
    let byteCount: Int
    let name: StaticString
    let note: StaticString

    @inline(__always)
    init(_ offset: Int, _ byteCount: Int, _ name: StaticString, _ note: StaticString = "") {
        self.offset = offset
        self.byteCount = byteCount
        self.name = name
        self.note = note
    }

    var end: Int { @inline(__always) get { offset + byteCount } }
    var part: LayoutPart {
        LayoutPart(offset: offset, byteCount: byteCount, name: name, note: note, style: .hidden)
    }
}

/// The last part of a layout: elements from `offset` on, as many as other fields say.
struct Tail<Element: Stored>: LayoutMember {
    let offset: Int
    let name: StaticString
    let note: StaticString

    @inline(__always)
    init(_ offset: Int, _ name: StaticString, _ note: StaticString = "") {
        self.offset = offset
        self.name = name
        self.note = note
    }

    /// Where the element with this index lies.
    @inline(__always)
    subscript(_ index: Int) -> Field<Element> { Field(offset + index * Element.storedByteCount, name) }

    var part: LayoutPart {
        LayoutPart(
            offset: offset, byteCount: Element.storedByteCount, name: name, note: note, style: .hidden,
            isRepeated: true)
    }
}

// MARK: Values

/// A type whose values all have the same length on disk.
protocol Stored {
    static var storedByteCount: Int { get }
    static var storedParts: [LayoutPart] { get }
}

extension Stored {
    static var storedParts: [LayoutPart] { [] }
}

/// A type with a layout of its own.
protocol LaidOut: Stored {
    associatedtype Layout: DiskLayout
}

extension LaidOut {
    static var storedByteCount: Int { @inline(__always) get { Layout.byteCount } }
    static var storedParts: [LayoutPart] { Layout.parts }
}

/// A type that any bytes decode to. Decoding never fails; whether the value is possible is checked elsewhere.
protocol StoredValue: Stored {
    init(at place: UnsafeRawPointer)
    func store(at place: UnsafeMutableRawPointer)
}

extension StoredValue where Self: FixedWidthInteger {
    static var storedByteCount: Int { @inline(__always) get { MemoryLayout<Self>.size } }
    @inline(__always)
    init(at place: UnsafeRawPointer) { self.init(littleEndian: place.loadUnaligned(as: Self.self)) }
    @inline(__always)
    func store(at place: UnsafeMutableRawPointer) { place.storeBytes(of: littleEndian, as: Self.self) }
}

extension UInt8: StoredValue {}
extension UInt16: StoredValue {}
extension Int16: StoredValue {}
extension UInt32: StoredValue {}
extension UInt64: StoredValue {}
extension Int64: StoredValue {}

/// A struct around one number.
protocol StoredNumber: StoredValue {
    associatedtype RawValue: StoredValue
    var rawValue: RawValue { get }
    init(_ rawValue: RawValue)
}

extension StoredNumber {
    static var storedByteCount: Int { @inline(__always) get { RawValue.storedByteCount } }
    @inline(__always)
    init(at place: UnsafeRawPointer) { self.init(RawValue(at: place)) }
    @inline(__always)
    func store(at place: UnsafeMutableRawPointer) { rawValue.store(at: place) }
}

extension InodeNumber: StoredNumber {}
extension SegmentNumber: StoredNumber {}
extension RecordSequence: StoredNumber {}
extension BatchSequence: StoredNumber {}
extension PayloadID: StoredNumber {}
extension MountEpoch: StoredNumber {}
extension CheckpointNumber: StoredNumber {}
extension PageAddress: StoredNumber {}

/// Sixteen bytes, in the order in which people write a uuid.
extension StoreUUID: StoredValue {
    static var storedByteCount: Int { @inline(__always) get { 2 * UInt64.storedByteCount } }
    init(at place: UnsafeRawPointer) {
        self.init(
            high: UInt64(at: place).byteSwapped, low: UInt64(at: place + UInt64.storedByteCount).byteSwapped)
    }
    func store(at place: UnsafeMutableRawPointer) {
        high.byteSwapped.store(at: place)
        low.byteSwapped.store(at: place + UInt64.storedByteCount)
    }
}

/// Seconds since 1970, then nanoseconds.
extension Timestamp: StoredValue {
    static var storedByteCount: Int { @inline(__always) get { Int64.storedByteCount + UInt32.storedByteCount } }
    @inline(__always)
    init(at place: UnsafeRawPointer) {
        self.init(
            seconds: Int64(at: place),
            nanoseconds: Swift.min(UInt32(at: place + Int64.storedByteCount), 999_999_999))
    }
    @inline(__always)
    func store(at place: UnsafeMutableRawPointer) {
        seconds.store(at: place)
        nanoseconds.store(at: place + Int64.storedByteCount)
    }
}

// MARK: Access

extension UnsafeRawBufferPointer {
    /// The value of a field. Traps outside the buffer.
    @inline(__always)
    subscript<Value: StoredValue>(_ field: Field<Value>) -> Value {
        precondition(field.offset >= 0 && field.end <= count)
        return Value(at: baseAddress.unsafelyUnwrapped + field.offset)
    }

    /// The bytes of a field. Traps outside the buffer.
    @inline(__always)
    func part<Value>(_ field: Field<Value>) -> UnsafeRawBufferPointer { part(field.offset, Value.storedByteCount) }
}

extension UnsafeMutableRawBufferPointer {
    /// The value of a field. Traps outside the buffer.
    @inline(__always)
    subscript<Value: StoredValue>(_ field: Field<Value>) -> Value {
        get { UnsafeRawBufferPointer(self)[field] }
        nonmutating set {
            precondition(field.offset >= 0 && field.end <= count)
            newValue.store(at: baseAddress.unsafelyUnwrapped + field.offset)
        }
    }

    /// The bytes of a field. Traps outside the buffer.
    @inline(__always)
    func part<Value>(_ field: Field<Value>) -> UnsafeMutableRawBufferPointer {
        part(field.offset, Value.storedByteCount)
    }
}

extension UnsafeRawPointer {
    /// The value of a field, without a check of bounds: for parts of a structure whose length was checked.
    @inline(__always)
    subscript<Value: StoredValue>(_ field: Field<Value>) -> Value { Value(at: self + field.offset) }
}

extension UnsafeMutableRawPointer {
    /// The value of a field, without a check of bounds: for index pages, and for parts of a structure whose length was
    /// checked.
    @inline(__always)
    subscript<Value: StoredValue>(_ field: Field<Value>) -> Value {
        get { Value(at: UnsafeRawPointer(self) + field.offset) }
        nonmutating set { newValue.store(at: self + field.offset) }
    }
}

// MARK: Structures that carry their own checksum

extension UnsafeRawBufferPointer {
    /// The checksum of the bytes, with the checksum field itself taken as zero.
    @inline(__always)
    func ownChecksum(in field: Field<UInt32>) -> UInt32 { Checksum.crc32c(self, withHoleAt: field.offset) }

    /// Whether the field holds the checksum of the bytes.
    @inline(__always)
    func isSealed(by field: Field<UInt32>) -> Bool { self[field] == ownChecksum(in: field) }
}

extension UnsafeMutableRawBufferPointer {
    /// Stores the checksum of the bytes in their checksum field, and returns it.
    @discardableResult @inline(__always)
    func seal(_ field: Field<UInt32>) -> UInt32 {
        let checksum = UnsafeRawBufferPointer(self).ownChecksum(in: field)
        self[field] = checksum
        return checksum
    }
}
